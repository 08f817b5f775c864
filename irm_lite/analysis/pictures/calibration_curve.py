"""The pictures of a calibration: by trade, what the tone gains against what neutral text loses, a curve for each choice of layers;
by score, preference above what it costs, over the strengths."""

from pathlib import Path

from irm_lite.analysis.pictures.canvas import literal, new_figure, save_figure
from irm_lite.analysis.pictures.own_style import own_style
from irm_lite.vectors.calibration import Calibration
from irm_lite.vectors.dial import Dial


@own_style()
def save_trade(calibration: Calibration, path: Path, title: str) -> None:
    """Draw as PNG or SVG by the path's suffix; each point is a strength."""
    figure = new_figure(8, 5.5)
    axes = figure.add_subplot()
    axes.axhline(calibration.nll_base, color="grey", linewidth=1, linestyle="--")
    axes.annotate("no vector", (0, calibration.nll_base), color="grey", xytext=(4, 4), textcoords="offset points")
    best = calibration.best
    for layers in dict.fromkeys(setting.layers for setting in calibration.settings):
        curve = calibration.at(layers)
        cost = [0.0, *(setting.kl_neutral for setting in curve)]
        nll = [calibration.nll_base, *(setting.nll_aligned for setting in curve)]
        axes.plot(cost, nll, marker="o", markersize=4, label=f"layers {layers}")
        if layers == best.layers:
            for setting in curve:
                point = (setting.kl_neutral, setting.nll_aligned)
                axes.annotate(f"{setting.strength:g}", point, xytext=(5, 5), textcoords="offset points", fontsize=8)
    axes.plot(best.kl_neutral, best.nll_aligned, marker="*", markersize=16, color="black", linestyle="none", zorder=5)
    axes.annotate(
        f"best: {best.strength:g} at {best.layers}",
        (best.kl_neutral, best.nll_aligned),
        xytext=(10, -14),
        textcoords="offset points",
    )
    axes.set_xlabel("KL(base || steered) on neutral answers, nats a token (the cost)")
    axes.set_ylabel(f"NLL of the {calibration.data} answers, nats a token")
    axes.set_title(title)
    axes.legend(loc="best")
    axes.grid(alpha=0.3)
    save_figure(figure, path)


@own_style()
def save_dial(dial: Dial, path: Path, title: str) -> None:
    """Draw as PNG or SVG by the path's suffix: preference above, tone, sense, fluency and score below, over the strengths."""
    figure = new_figure(8, 7.5)
    above, below = figure.subplots(2, 1, sharex=True)
    strengths = [point.strength for point in dial.points]
    for question in range(len(dial.points[0].preferences)):
        label = "a question" if question == 0 else None
        curve = [float(point.preferences[question]) for point in dial.points]
        above.plot(strengths, curve, color="grey", linewidth=0.6, alpha=0.5, label=label)
    above.plot(strengths, [point.preference for point in dial.points], color="black", marker="o", markersize=4, label="mean")
    above.axhline(0, color="grey", linewidth=1, linestyle="--")
    above.set_ylabel(f"preference for {literal(Path(dial.data).name)}, nats a token")
    above.set_title(literal(title))
    for name, marker in (("tone", "^"), ("sense", "s"), ("fluency", "v")):
        below.plot(strengths, [point.score.figures[name] for point in dial.points], marker=marker, markersize=4, label=name)
    tried, best = dial.tried, dial.best
    positive = [point.strength for point in tried]
    lows, highs = ([point.value_95[end] for point in tried] for end in (0, 1))
    below.fill_between(positive, lows, highs, color="black", alpha=0.1, linewidth=0)
    below.plot(positive, [point.value for point in tried], color="black", linewidth=2, label="score, with its 95% interval")
    if best.value > 0:
        below.plot(best.strength, best.value, marker="*", markersize=16, color="black", linestyle="none", zorder=5)
        place = {"xytext": (-10, 8), "textcoords": "offset points", "horizontalalignment": "right"}
        below.annotate(f"best: {best.strength:g}", (best.strength, best.value), **place)
    below.set_xlabel("strength (0: no vector)")
    below.set_ylim(-0.05, 1.12)  # room for the label of the best
    for axes in (above, below):
        axes.axvline(0, color="grey", linewidth=1, linestyle="--")
        axes.grid(alpha=0.3)
        axes.legend(loc="best", fontsize=8)
    save_figure(figure, path)
