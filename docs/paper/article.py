"""The article's tables and figures, from the committed reports alone: python docs/paper/article.py

Reads tests/MODEL/runs.json, static.json, masked.json and, where it is there, paper.json beside this file; draws
figures/tests/*.svg, and writes what is between the markers of neuron-1512.md: each model's table, the runs, and p values over both.
"""

import json
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from verdicts import (
    HOLDS,
    KL,
    MARGIN,
    REFUTED,
    TONES,
    TOP,
    UNDECIDED,
    ablated_records,
    ablated_runs,
    equal_nll,
    fields_of,
    pairs_of,
    rank_of,
    table,
    verdicts,
)

from irm_lite.analysis.statistics.holm import holm

HERE = Path(__file__).parent
ARTICLE, FIGURES = HERE / "neuron-1512.md", HERE / "figures" / "tests"
MODELS = {"qwen": (490, 570), "demo": (507, 247)}  # predictions.md's channel and the next loudest
_LIKEWISE = {"4": REFUTED, "6": REFUTED, "6i": HOLDS, "6ii": REFUTED, "7": REFUTED}  # of both
EXPECTED = {
    "qwen": {"1": HOLDS, "2": HOLDS, "3": HOLDS, "5": REFUTED, **_LIKEWISE},
    "demo": {"1": "nothing", "2": "below 0.9", "3": "below 0.5", "5": UNDECIDED, "5, paper": UNDECIDED, **_LIKEWISE},
}  # predictions.md's
COUNTED = ("1", "3", "5", "6ii")
PARTS = ("direct", "final norm", "block norms")
COLOURS = ("#0072b2", "#d55e00", "#e69f00")  # told apart without colour vision too
GREY = "#999999"

Report = dict[str, Any]
Reports = dict[str, Report]


def main() -> None:
    if len(sys.argv) > 1:
        raise SystemExit(f"{Path(__file__).name} takes no arguments: it reads what docs/paper/tests.sh left")
    found = {model: _reports(HERE / "tests" / model) for model in MODELS if (HERE / "tests" / model / "static.json").is_file()}
    if not found:
        raise SystemExit(f"there are no reports in {HERE / 'tests'}: docs/paper/tests.sh {next(iter(MODELS))} makes them")
    FIGURES.mkdir(parents=True, exist_ok=True)
    plt.rcParams |= {"svg.hashsalt": "irm-lite", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
    for name, draw in (("paths", _paths), ("zeroed", _zeroed), ("ranks", _ranks), ("masked", _masked), ("sets", _sets)):
        figure, axes = plt.subplots(1, len(found), figsize=(4.6 * len(found), 3.1), squeeze=False, layout="constrained")
        for axis, (model, reports) in zip(axes[0], found.items(), strict=True):
            draw(axis, reports, *MODELS[model])
            axis.set_title(f"{model}, index {MODELS[model][0]}", fontsize=9)
        figure.savefig(FIGURES / f"{name}.svg", metadata={"Date": None})
        plt.close(figure)
    of_model = {model: verdicts(each["static"], each["masked"], each.get("paper"), *MODELS[model]) for model, each in found.items()}
    shown = {model: table(each, EXPECTED[model]) for model, each in of_model.items()}
    shown |= {"runs": _runs(list(found)), "both": _both(of_model)}
    text = ARTICLE.read_text(encoding="utf-8")
    for name, part in shown.items():
        text, count = re.subn(
            rf"(<!-- {name} -->\n).*?(\n<!-- end -->)", lambda m, t=part: f"{m[1]}\n{t}\n{m[2]}", text, flags=re.S
        )
        if count != 1:
            raise SystemExit(f"{ARTICLE.name} has {count} places for {name}: it is to have one")
    ARTICLE.write_text(text, encoding="utf-8")


def _runs(models: Sequence[str]) -> str:
    lines = ["| model | kind | runs | steps, each | the best one at | hours in all |", "|---|---|---:|---:|---:|---:|"]
    for model in models:
        runs = json.loads((HERE / "tests" / model / "runs.json").read_text(encoding="utf-8"))["runs"]
        kinds = dict.fromkeys(run["name"].partition("-seed-")[2].partition("-")[2] for run in runs)
        for kind in kinds:
            mine = [run for run in runs if run["name"].endswith(f"-{kind}")]
            steps, best = ([run[key] for run in mine] for key in ("steps", "best_step"))
            hours = sum(run["seconds"] for run in mine) / 3600
            lines.append(
                f"| {model} | {kind} | {len(mine)} | {min(steps)} to {max(steps)} | {min(best)} to {max(best)} | {hours:.1f} |"
            )
    return "\n".join(lines)


def _both(of_model: dict[str, Report]) -> str:
    """p of the tests that hold, after Holm over all of them on both models: predictions.md, "Verdict"."""
    held = [
        (model, number, p) for model, each in of_model.items() for number in COUNTED if (p := _p(each["tests"][number])) is not None
    ]
    lines = ["| model | test that holds | p | after Holm over these |", "|---|---|---:|---:|"]
    after = holm(np.array([p for *_, p in held]))
    return "\n".join(
        [*lines, *(f"| {model} | {number} | {p:.3g} | {q:.3g} |" for (model, number, p), q in zip(held, after, strict=True))]
    )


def _p(test: Report) -> float | None:
    """Of a test that holds; of one that asks it of all three tones, the largest."""
    if test["verdict"] != HOLDS:
        return None
    p = test["p"] if "p" in test else max(row["p"] for row in test["by_tone"].values())
    return float(p)


def _reports(folder: Path) -> Reports:
    """Exits where a model's are half there, as they are while tests.sh runs: nothing is drawn then."""
    for name in ("masked.json", "runs.json"):
        if not (folder / name).is_file():
            raise SystemExit(f"{folder / name} is missing: docs/paper/tests.sh {folder.name} goes on where it was stopped")
    names = [name for name in ("static", "masked", "paper") if (folder / f"{name}.json").is_file()]
    return {name: json.loads((folder / f"{name}.json").read_text(encoding="utf-8")) for name in names}


def _paths(axis: Axes, reports: Reports, channel: int, _following: int) -> None:
    """Test 1: through what the channel's gradient goes."""
    lines = {tone: line for tone, _, line in fields_of(reports["static"], channel)}
    rows = [lines[tone] for tone in TONES]
    for k, (part, colour) in enumerate(zip(PARTS, COLOURS, strict=True)):
        axis.bar(np.arange(len(rows)) + 0.27 * (k - 1), [line[part] for line in rows], 0.25, color=colour, label=part)
    axis.axhline(0, color="black", linewidth=0.8)
    axis.set_xticks(range(len(rows)), TONES)
    axis.set_ylabel("share of the index's gradient")
    _legend_below(axis)


def _zeroed(axis: Axes, reports: Reports, channel: int, _following: int) -> None:
    """Tests 2 and 3: what zeroing it does, and what of that is left with denominators held, or explained by a temperature."""
    kinds = (("free", COLOURS[1], "norms free"), ("steered", COLOURS[0], "denominators held"))
    for k, (norms, colour, label) in enumerate(kinds):
        found = dict(ablated_records(reports["static"], channel, norms, "matched"))
        for row, each in ((TONES.index(tone), each) for tone, each in found.items()):
            at = row + 0.2 * (0.5 - k)
            axis.plot(each["effect_95"], [at, at], color=colour, linewidth=2)
            axis.plot(each["effect"], at, "o", color=colour, label=label if row == 0 else None)
            if norms == "free":
                controls = "others, nearest in RMS (95%)"
                axis.plot(each["control_95"], [at, at], color=GREY, linewidth=4, alpha=0.6, label=controls if row == 0 else None)
                text = f"a temperature explains {each['explained']:.0%}, of the others' {each['controls_explained']:.0%}"
                axis.text(0.03, row - 0.36, text, transform=axis.get_yaxis_transform(), fontsize=7.5)
    axis.set_yticks(range(len(TONES)), TONES)
    axis.set_ylim(-0.6, len(TONES) - 0.6)
    axis.set_xscale("symlog", linthresh=0.1)
    axis.set_xlim(left=0)
    axis.xaxis.set_major_formatter("{x:g}")
    axis.set_xlabel("KL of zeroing it in the base, nats a token")
    _legend_below(axis)


def _ranks(axis: Axes, reports: Reports, channel: int, following: int) -> None:
    """Tests 5 and 6 (ii): where the two indices rank by what the trained IRMs put there."""
    for row, report in enumerate(reports.values()):
        for index, marker, colour in ((channel, "o", COLOURS[1]), (following, "x", COLOURS[0])):
            ranks = [rank for run in report["runs"] if (rank := rank_of(run, index)) is not None]
            spread = row + np.linspace(-0.2, 0.2, len(ranks))
            axis.plot(ranks, spread, marker, color=colour, label=f"index {index}" if row == 0 else None, alpha=0.8)
    axis.axvspan(0.8, TOP, color=GREY, alpha=0.25, linewidth=0)
    axis.set_xscale("log")
    axis.set_xlim(0.8, 1.1 * reports["static"]["base"]["hidden_size"])
    axis.set_yticks(range(len(reports)), list(reports))
    axis.set_xlabel(f"rank by importance in each run; grey: the top {TOP}")
    axis.xaxis.set_major_formatter("{x:g}")
    _legend_below(axis)


def _masked(axis: Axes, reports: Reports, _channel: int, _following: int) -> None:
    """Test 6 (i): the best validation NLL with the channel masked, less that without."""
    pairs = pairs_of(reports["static"], reports["masked"])
    more = [after["nll"]["irm"] - before["nll"]["irm"] for before, after in pairs]
    axis.plot(more, [TONES.index(before["data"]) for before, _ in pairs], "o", color=COLOURS[1])
    axis.axvspan(-MARGIN, MARGIN, color=GREY, alpha=0.25, linewidth=0)
    found = equal_nll(reports["static"], reports["masked"])
    if "interval_90" in found:
        axis.plot(found["interval_90"], [len(TONES)] * 2, color=COLOURS[0], linewidth=3)
    axis.set_yticks(range(len(TONES) + 1), [*TONES, "mean, 90%"])
    axis.set_xticks(np.array([-1, 0, 1]) * MARGIN)
    axis.set_xlabel(f"nats a token, masked less not; grey: within {MARGIN}")


def _sets(axis: Axes, reports: Reports, _channel: int, _following: int) -> None:
    """Test 7: the share of KL(IRM || base) that is left without the most important index, and with the 20 most important alone."""
    runs = {run["data"]: run for run in ablated_runs(reports["static"])}
    for row, run in enumerate(runs[tone] for tone in TONES if tone in runs):
        for k, (what, size, left, low, high) in enumerate(_kept(run["sets"])):
            at = row + 0.16 * (0.5 - k)
            axis.plot([low, high], [at, at], color=GREY, linewidth=4, alpha=0.6, label="random sets" if row == k == 0 else None)
            axis.plot(left, at, "o", color=COLOURS[k], label=f"{what} {size}" if row == 0 else None)
    if not any(run["sets"] for run in runs.values()):
        axis.text(0.5, 1, "not run yet", ha="center", color=GREY)
    axis.set_yticks(range(len(TONES)), TONES)
    axis.set_xlim(-0.05, 1.05)
    axis.set_xlabel("share of the effect that is left")
    _legend_below(axis)


def _legend_below(axis: Axes) -> None:
    if axis.get_legend_handles_labels()[0]:
        axis.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=3)


def _kept(sets: Sequence[Report]) -> Iterator[tuple[str, int, float, float, float]]:
    """Of each set what it leaves, and what random ones of its size do (95% of them)."""
    for each in sets:
        kl = next(one for one in each["effects"] if one["measure"] == KL and one["controls_kind"] == "random sets")
        low, high = (1 - value / kl["nothing"] for value in reversed(kl["control_95"]))
        yield each["what"], each["k"], each["kept_effect"], low, high


if __name__ == "__main__":
    main()
