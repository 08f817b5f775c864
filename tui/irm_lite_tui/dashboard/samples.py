"""What the steered model wrote at each validation, side by side."""

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import HorizontalScroll, VerticalScroll
from textual.widgets import Static

from irm_lite_tui.shared.plot import Point
from irm_lite_tui.shared.text import line, paragraphs
from irm_lite_tui.watch.run_log import Sample


class SampleColumns(HorizontalScroll):
    """A column a sample, the oldest at the left; the newest is scrolled to."""

    DEFAULT_CSS = """
    SampleColumns { border: round $border-blurred; border-title-color: $text-muted; }
    SampleColumns .sample { width: 32; height: 1fr; padding: 0 1; border-right: solid $panel; }
    SampleColumns .sample Static { height: auto; }
    SampleColumns .none { color: $text-muted; }
    SampleColumns:focus { border: round $border; }
    """

    def __init__(self, id: str | None = None) -> None:
        super().__init__(id=id)
        self.border_title = "samples"
        self._shown: list[Sample] = []

    def compose(self) -> ComposeResult:
        yield Static("", classes="none")

    def awaits(self, every: int | None) -> None:
        """What stands in place of samples: that one comes every so many steps; None: nothing, the training is over."""
        at = f", every {every} steps" if every else ""
        self.query_one(".none", Static).update("" if every is None else f"none yet: one is written at each validation{at}")

    async def show(self, samples: list[Sample], validation: list[Point]) -> None:
        """Show these samples; columns that exist stay."""
        self.query_one(".none").display = not samples
        if samples == self._shown:
            return
        if self._shown != samples[: len(self._shown)]:
            await self.remove_children(".sample")
            self._shown = []
        nll = dict(validation)
        fresh = samples[len(self._shown) :]
        self._shown = samples
        await self.mount_all(_column(sample, nll.get(sample.step)) for sample in fresh)
        if samples:
            title = line(f"{samples[-1].prompt}")
            title.truncate(max(10, self.size.width - 6), overflow="ellipsis")
            self.border_title = title
            self.call_after_refresh(self.scroll_end, animate=False)


def _column(sample: Sample, nll: float | None) -> VerticalScroll:
    head = f"step {sample.step}" + ("" if nll is None else f", NLL {nll:.3f}")
    return VerticalScroll(Static(Text(head, style="bold")), Static(paragraphs(sample.text)), classes="sample", can_focus=False)
