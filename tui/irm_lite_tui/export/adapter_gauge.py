"""The fidelity of an adapter as a gauge, beside its vector's."""

from typing import ClassVar

from rich.console import Group, RenderableType
from rich.style import Style
from rich.text import Text
from textual.geometry import clamp
from textual.reactive import reactive
from textual.widget import Widget

from irm_lite.core.visible_text import visible
from irm_lite.vectors.fidelity.comparison import GOOD_FIDELITY
from irm_lite_tui.export.adapter_figures import AdapterMeasured
from irm_lite_tui.export.fidelity_gauge import bar, scale, score_text


class AdapterGauge(Widget):
    """As the vector's gauge; hidden without figures."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"gauge--good", "gauge--poor"}
    measured: reactive[AdapterMeasured | None] = reactive(None, layout=True)

    def watch_measured(self, measured: AdapterMeasured | None) -> None:
        self.display = measured is not None

    def render(self) -> RenderableType:
        """The gauge, its interval, the vector's fidelity, other strengths, size and time."""
        measured = self.measured
        if measured is None:
            return ""
        fidelity = measured.fidelity
        good = fidelity is not None and fidelity >= GOOD_FIDELITY
        colour = self.get_component_rich_style("gauge--good" if good else "gauge--poor")
        head = Text.assemble("fidelity ", (_figure(fidelity), colour + Style(bold=True)))
        if measured.interval is not None:
            head.append("  95%: {:.3f} to {:.3f}".format(*measured.interval))
        if not good and fidelity is not None and measured.worst is not None:
            head.append(f"  below {GOOD_FIDELITY}: take the vector where that can be", colour)
        width = clamp(self.size.width, 10, 60)
        about = Text(style="dim")
        if measured.vector is not None:
            about.append(f"the vector's own there: {_figure(measured.vector)}\n")
        if measured.strengths:
            at = ", ".join(f"{value:.3f} at {visible(strength)}" for strength, value in measured.strengths.items())
            about.append(f"of what the {measured.strengths_of} does it does {at}\n")
        if measured.worst is None:
            about.append("the run's LoRA itself, copied: nothing was predicted\n")
        elif measured.tuned:
            about.append(f"{measured.tuned}\n")
            about.append(f"what the IRM adds is predicted with {measured.worst:.3g} of its power lost in the worst block\n")
        else:  # of an adapter that adds p times the vector that share is the mean square of p - 1
            about.append(f"of the vector's power {measured.worst:.3g} arrives wrongly in the worst block\n")
        about.append(f"{measured.samples} held-out answers, {measured.tokens} tokens, in {visible(measured.measured_in)}; ")
        about.append(f"{measured.n_bytes / 1000:.0f} kB, made in {measured.seconds:.0f} s")
        shown: list[RenderableType] = [head, bar(fidelity or 0.0, width, colour), scale(width), about]
        return Group(*shown, *([score_text(measured.score)] if measured.score else []))


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
