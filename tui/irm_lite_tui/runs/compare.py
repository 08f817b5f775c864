"""Two runs side by side: what they were set to, how they went."""

from pathlib import Path
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import Screen
from textual.widgets import DataTable, Footer

from irm_lite_tui.shared.curve_plot import CurvePlot
from irm_lite_tui.shared.mode_bar import ModeBar
from irm_lite_tui.shared.plot import Point
from irm_lite_tui.shared.text import line
from irm_lite_tui.watch.messages import RunsRead
from irm_lite_tui.watch.run_state import RunReader, RunView, figure


class CompareScreen(Screen[None]):
    """Settings that differ come first and stand out; both validation curves are in one plot."""

    CSS_PATH = "compare.tcss"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (110, "-wide")]  # noqa: RUF012 - as Textual declares it
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "app.pop_screen", "Back", id="compare.back")]

    def __init__(self, left: Path, right: Path) -> None:
        super().__init__()
        self._readers = RunReader(left), RunReader(right)

    def compose(self) -> ComposeResult:
        yield ModeBar()
        with Vertical(id="body"):
            yield DataTable[Text](cursor_type="row", zebra_stripes=True)
            with Vertical(id="curves"):
                yield CurvePlot("validation NLL", id="validation")
                yield CurvePlot("loss", id="loss")
        yield Footer()

    def on_mount(self) -> None:
        self.run_worker(self._read, thread=True)

    def _read(self) -> None:
        self.post_message(RunsRead([reader.look() for reader in self._readers]))

    def on_runs_read(self, message: RunsRead) -> None:
        views = message.views
        table = self.query_one(DataTable)
        names = [line(view.name) for view in views]
        for name in names:
            name.truncate(28, overflow="ellipsis")
        table.add_columns("", *names)
        for label, *cells in _rows(views[0], views[1]):
            differ = cells[0] != cells[1]
            table.add_row(Text(label), *(line(cell, "bold" if differ else "dim") for cell in cells))
        table.focus()
        validation, loss = ([_points(reader, name) for reader in self._readers] for name in ("validation", "loss"))
        labels = [f"{mark} {view.name[:24]}" for mark, view in zip("12", views, strict=True)]
        self.query_one("#validation", CurvePlot).show(dict(zip(labels, validation, strict=True)))
        self.query_one("#loss", CurvePlot).show(dict(zip(labels, loss, strict=True)))


def _points(reader: RunReader, curve: str) -> list[Point]:
    found = reader.log.validation if curve == "validation" else reader.log.loss
    return found.points


def _rows(left: RunView, right: RunView) -> list[tuple[str, str, str]]:
    """Results, then settings that differ, then those that agree."""
    results = [
        ("state", left.state, right.state),
        ("steps", f"{left.step}/{left.max_steps}", f"{right.step}/{right.max_steps}"),
        ("best NLL", figure(left.best_nll), figure(right.best_nll)),
        ("fidelity", figure(left.fidelity), figure(right.fidelity)),
        *([("adapter's fidelity", left.adapter or "-", right.adapter or "-")] if left.adapter or right.adapter else []),
        ("score of text", figure(left.score, ".2f"), figure(right.score, ".2f")),
    ]
    settings = [view.config.to_dict() if view.config else {} for view in (left, right)]
    names = list(settings[0] or settings[1])
    rows = [(name, str(settings[0].get(name, "-")), str(settings[1].get(name, "-"))) for name in names]
    return results + sorted(rows, key=lambda row: row[1] == row[2])
