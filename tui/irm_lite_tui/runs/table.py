"""The table of runs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.text import Text
from textual.theme import Theme
from textual.widgets import DataTable

from irm_lite_tui.shared.plot import sparkline
from irm_lite_tui.shared.text import line
from irm_lite_tui.watch.run_state import COLOURS, SIGNS, RunView, age, figure

_STATES = list(SIGNS)

# What each column is sorted by; runs without a value come last.
ORDERS: dict[str, Callable[[RunView], Any]] = {
    "run": lambda view: view.name.casefold(),
    "state": lambda view: _STATES.index(view.state),
    "steps": lambda view: -view.step,
    "NLL": lambda view: view.best_nll if view.best_nll is not None else float("inf"),
    "fidelity": lambda view: -view.fidelity if view.fidelity is not None else float("inf"),
    "score": lambda view: -view.score if view.score is not None else float("inf"),
    "age": lambda view: -view.created,
    "kind": lambda view: view.config.irm if view.config else "~",
    "data": lambda view: view.config.data.casefold() if view.config else "~",
    "base": lambda view: view.config.model.casefold() if view.config else "~",
}
_COLUMNS = ("run", "state", "loss", "steps", "NLL", "fidelity", "score", "age", "kind", "data", "base")
_HEADS = {"fidelity": "fid."}
_CURVE = 6


class RunTable(DataTable[Text]):
    """A row for each run that passes the filter. Rows stay where they are while their cells change."""

    def __init__(self, id: str | None = None) -> None:
        super().__init__(id=id, cursor_type="row", zebra_stripes=True)
        self.marked: list[Path] = []
        self.filter, self.sort_by, self.descending = "", "age", False
        self._wanted: Path | None = None  # see go_to
        self._stood: Path | None = None  # where the cursor was then, or after the last show
        self.looked = False
        self._views: list[RunView] = []
        self._shown: list[RunView] = []

    def on_mount(self) -> None:
        for column in _COLUMNS:
            self.add_column(_HEADS.get(column, column), key=column)
        self.app.theme_changed_signal.subscribe(self, self._recolour)

    @property
    def current(self) -> RunView | None:
        """The run under the cursor."""
        return self._shown[self.cursor_row] if 0 <= self.cursor_row < len(self._shown) else None

    @property
    def empty(self) -> bool:
        """Whether there is no run at all, filtered out or not, as far as one has looked."""
        return self.looked and not self._views

    def show(self, views: list[RunView] | None = None) -> None:
        """Show these runs (or those shown last) by the present filter, order and marks."""
        self.looked = self.looked or views is not None
        self._views = self._views if views is None else views
        self.marked = [path for path in self.marked if any(view.path == path for view in self._views)]
        words = self.filter.casefold().split()
        passing = [view for view in self._views if all(word in _haystack(view) for word in words)]
        wanted = sorted(sorted(passing, key=lambda view: view.name), key=ORDERS[self.sort_by], reverse=self.descending)
        same = [view.path for view in wanted] == [view.path for view in self._shown]
        before = self._place
        if before != self._stood:
            self._wanted = None
        self._shown = wanted
        if same:
            for view in wanted:
                for column, cell in zip(_COLUMNS, self._cells(view), strict=True):
                    if self.get_cell(str(view.path), column) != cell:
                        self.update_cell(str(view.path), column, cell, update_width=True)
        else:
            with self.app.batch_update():
                self.clear()
                for view in wanted:
                    self.add_row(*self._cells(view), key=str(view.path))
                if before is not None:
                    self._go(before)
        if self._wanted is not None and self._go(self._wanted):
            self._wanted = None
        self._stood = self._place

    def go_to(self, path: Path) -> None:
        """Put the cursor on this run when next shown with it, unless it is moved before."""
        self._wanted, self._stood = path, self._place

    @property
    def _place(self) -> Path | None:
        return None if self.current is None else self.current.path

    def _go(self, path: Path) -> bool:
        """Put the cursor on this run; False where it is not among the rows."""
        paths = [view.path for view in self._shown]
        if path in paths:
            self.move_cursor(row=paths.index(path), animate=False)
        return path in paths

    def _recolour(self, _theme: Theme) -> None:
        """Draw all cells in the new theme's colours: a Text that differs only in style counts as equal."""
        for view in self._shown:
            for column, cell in zip(_COLUMNS, self._cells(view), strict=True):
                self.update_cell(str(view.path), column, cell)

    def mark(self) -> None:
        """Mark the run under the cursor, or take its mark away; two at most, the older mark goes."""
        if self.current is None:
            return
        path = self.current.path
        self.marked = [each for each in self.marked if each != path] if path in self.marked else [*self.marked[-1:], path]
        self.show()

    def _cells(self, view: RunView) -> tuple[Text, ...]:
        colour = self.app.theme_variables[COLOURS[view.state]]
        config = view.config
        mark = "◆ " if view.path in self.marked else ""
        steps = f"{view.step}/{view.max_steps}" if view.max_steps else "-"
        state = line(f"{SIGNS[view.state]} {view.state_text}", colour)
        state.truncate(24, overflow="ellipsis")
        name = line(mark + view.name)
        name.truncate(24, overflow="ellipsis")
        base = line(config.model if len(config.model) <= 24 else "…" + config.model[-23:]) if config else Text("-")
        return (
            name,
            state,
            Text(f"{sparkline(view.loss, _CURVE):<{_CURVE}}", style=self.app.theme_variables["secondary"]),
            Text(steps, justify="right"),
            Text(figure(view.best_nll), justify="right"),
            Text(figure(view.fidelity), justify="right"),
            Text(figure(view.score, ".2f"), justify="right"),
            Text(age(view.created) if view.created else "-", justify="right"),
            Text(config.irm if config else "-"),
            line(Path(config.data).name if config else "-"),
            base,
        )


def _haystack(view: RunView) -> str:
    config = view.config
    settings = (config.model, config.data, config.irm) if config else ()
    return " ".join((view.name, view.state_text, *settings)).casefold()
