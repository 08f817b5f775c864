"""The picture of a calibration: what the tone gains against what neutral text loses, a curve for each choice of layers."""

from pathlib import Path

from irm_lite.analysis.pictures.canvas import new_figure, save_figure
from irm_lite.analysis.pictures.own_style import own_style
from irm_lite.vectors.calibration import Calibration


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
