"""The fidelity of an export as a gauge, with the numbers behind it."""

from typing import ClassVar

from rich.console import Group, RenderableType
from rich.style import Style
from rich.table import Table
from rich.text import Text
from textual.geometry import clamp
from textual.reactive import reactive
from textual.widget import Widget

from irm_lite.core.visible_text import one_line, visible
from irm_lite.vectors.fidelity.comparison import GOOD_FIDELITY
from irm_lite_tui.export.fidelity import Measured, ScoreRead

_EIGHTHS = " ▏▎▍▌▋▊▉"


class FidelityGauge(Widget):
    """From 0 (does nothing of what the IRM does) to 1, with a mark where an export is called good; hidden without figures."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"gauge--good", "gauge--poor"}
    measured: reactive[Measured | None] = reactive(None, layout=True)

    def watch_measured(self, measured: Measured | None) -> None:
        self.display = measured is not None

    def render(self) -> RenderableType:
        """The gauge, its interval, and NLL and KL of base, IRM and vector."""
        measured = self.measured
        if measured is None:
            return ""
        fidelity = measured.fidelity
        good = fidelity is not None and fidelity >= GOOD_FIDELITY
        poor = self.get_component_rich_style("gauge--poor")
        colour = self.get_component_rich_style("gauge--good") if good else poor
        head = Text.assemble("fidelity ", ("-" if fidelity is None else f"{fidelity:.3f}", colour + Style(bold=True)))
        if measured.fidelity_interval is not None:
            head.append("  95%: {:.3f} to {:.3f}".format(*measured.fidelity_interval))
        if measured.unsteered:
            head.append(f"\nwarning: {one_line(measured.unsteered)}", poor)
        elif not good:
            head.append(f"  below {GOOD_FIDELITY}: static vectors carry only part of this IRM", colour)
        if measured.disagreement:
            head.append(f"\nwarning: {one_line(measured.disagreement)}", poor)
        width = clamp(self.size.width, 10, 60)
        made = Text("= 1 - KL(IRM || vector) / KL(IRM || base)", "dim")
        where = Text(f"{measured.samples} held-out answers, {measured.tokens} tokens, in {visible(measured.measured_in)}", "dim")
        if measured.input_dependent is not None:
            share = (
                f"{100 * measured.input_dependent:.1f}% of the IRM's output varies with the input: no static vector carries that"
            )
            where.append(f"\n{share}")
        shown: list[RenderableType] = [head, bar(fidelity or 0.0, width, colour), scale(width), made, _table(measured), where]
        return Group(*shown, *([score_text(measured.score)] if measured.score else []))


def bar(value: float, width: int, colour: Style) -> Text:
    """From 0 to 1, in eighths of a cell."""
    eighths = round(clamp(value, 0.0, 1.0) * width * 8)
    full = "█" * (eighths // 8) + (_EIGHTHS[eighths % 8] if eighths % 8 else "")
    return Text.assemble((full, colour), ("░" * (width - len(full)), "dim"))


def score_text(score: ScoreRead) -> Text:
    """The score of a steered text, and the parts that it is the harmonic mean of."""
    text = Text("\nscore of text ")
    if score.value is None:
        text.append("- ", "bold")
    else:
        text.append(f"{score.value:.2f}", "bold")
    if score.interval is not None:
        text.append(f"  95%: {score.interval[0]:.2f} to {score.interval[1]:.2f}")
    text.append(f"  {score.questions} questions\n", "dim")
    text.append(", ".join(f"{name} {'-' if value is None else f'{value:.2f}'}" for name, value in score.parts.items()))
    for line in ([score.phrase] if score.phrase else []) + score.lacks:
        text.append(f"\n{visible(line)}", "dim")
    return text


def scale(width: int) -> Text:
    """What stands below it: where an export is called good."""
    at = round(GOOD_FIDELITY * width)
    marks = "0" + " " * (at - 3) + f"▲{GOOD_FIDELITY:g}"
    return Text(marks + " " * max(width - len(marks) - 1, 0) + "1", "dim")


def _table(measured: Measured) -> Table:
    def cell(name: str) -> str:
        low, high = measured.intervals[name]
        return f"{measured.means[name]:.3f} ({low:.2f} to {high:.2f})"

    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("")
    for name in ("NLL", "KL(IRM || it)"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_row("base", cell("nll_base"), cell("kl_irm_base"))
    table.add_row("IRM", cell("nll_irm"), "0")
    table.add_row("vector", cell("nll_vector"), cell("kl_irm_vector"))
    table.add_row("IRM's first choice", "", cell("top1_agreement"))
    return table
