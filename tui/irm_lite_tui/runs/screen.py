"""The runs under one folder, kept up to date, filtered and sorted."""

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.command import Provider
from textual.containers import Vertical
from textual.widgets import DataTable, Footer, Input, Static
from textual.worker import get_current_worker

from irm_lite_tui.runs.actions import RunActions
from irm_lite_tui.runs.commands import RunCommands
from irm_lite_tui.runs.messages import SortChanged
from irm_lite_tui.runs.table import ORDERS, RunTable
from irm_lite_tui.settings.keys import shown_key
from irm_lite_tui.settings.preferences import load_preferences
from irm_lite_tui.shared.messages import RunTaken
from irm_lite_tui.shared.mode_bar import ModeBar
from irm_lite_tui.shared.resting import is_seen
from irm_lite_tui.shared.text import line, paragraphs
from irm_lite_tui.watch.messages import RunsRead
from irm_lite_tui.watch.run_state import RunReader, RunView, find_run_folders, why_unread

EVERY_SECONDS = 1.0
_FIRST = """\
No runs in {folder} yet.

    {chat}   ask now, then enter: an angry vector ships with irm-lite

Press enter to train that tone yourself, on the small model that is here:
some ten minutes on two cores. Watch it learn. Meanwhile, or then:

    h   look: which neurons carry the effect
    t   talk: the model answers with it and without it
    e   export: a file for llama.cpp, and how much of the effect is in it

    {train}   train a tone of your own"""


class RunsScreen(RunActions):
    """`path` is the folder that holds the runs; ./runs if none is given."""

    COMMANDS: ClassVar[set[type[Provider] | Callable[[], type[Provider]]]] = {RunCommands}
    AUTO_FOCUS = ""  # the table gets it once there are rows
    CSS_PATH = "screen.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "watch", "Open", show=False, id="runs.open"),
        # before the keys that follow it in one burst delete a run
        Binding("slash", "filter", "Filter", key_display="/", priority=True, id="runs.filter"),
        Binding("space", "mark", "Mark", id="runs.mark"),
        Binding("c", "compare", "Compare", id="runs.compare"),
        Binding("r", "resume", "Resume", id="runs.resume"),
        Binding("x", "stop", "Stop", id="runs.stop"),
        Binding("n", "rename", "Rename", show=False, id="runs.rename"),
        Binding("d,delete", "delete", "Delete", id="runs.delete"),
        Binding("o", "folder", "Open the folder, or copy its path", show=False, id="runs.folder"),
        Binding("s", "sort", "Sort by the next column", show=False, id="runs.sort"),
        Binding("S", "reverse", "Reverse the order", show=False, id="runs.reverse"),
        Binding("h", "open_in('heatmap')", "Heatmap", show=False, id="runs.heatmap"),
        Binding("t", "open_in('chat')", "Chat", show=False, id="runs.chat"),
        Binding("e", "open_in('export')", "Export", show=False, id="runs.export"),
        Binding("w", "open_in('train')", "Train with its settings", show=False, id="runs.train"),
        Binding("escape", "unfilter", "Clear the filter", show=False, id="runs.unfilter"),
    ]

    def __init__(self, path: Path | None = None) -> None:
        super().__init__()
        self.folder = path or Path("runs")
        self._readers: dict[Path, RunReader] = {}
        self._looking = False
        self.taken: Path | None = None  # it shows all of them

    def compose(self) -> ComposeResult:
        yield ModeBar()
        yield Input(placeholder="words in name, state, kind, data or base", id="filter")
        yield RunTable(id="table")
        yield Static("", id="empty")
        with Vertical(id="about"):
            yield Static("", id="settings")
            yield Static("", id="problem")
        yield Footer()

    def on_mount(self) -> None:
        preferences, _ = load_preferences()
        table = self.query_one(RunTable)
        if preferences.sort in ORDERS:
            table.sort_by, table.descending = preferences.sort, preferences.descending
        self.query_one("#filter").display = False
        self.query_one("#empty", Static).update(Text("Looking ..."))
        table.display = False
        self._timer = self.set_interval(EVERY_SECONDS, self.look)

    def on_screen_suspend(self) -> None:
        if not is_seen(self):
            self._timer.pause()

    def on_screen_resume(self) -> None:
        self._timer.resume()
        if (in_hand := getattr(self.app, "in_hand", None)) is not None:
            self.take_run(in_hand)
        self.look()

    def take_run(self, path: Path) -> None:
        """See shared/in_hand.py: the cursor goes to it, now or once it is there."""
        table = self.query_one(RunTable)
        table.go_to(path)
        table.show()

    def keeps(self) -> str:
        """See shared/in_hand.py."""
        return ""

    # Reading

    def look(self) -> None:
        """Read the folder in a thread, unless the previous reading is still under way."""
        if not self._looking:
            self._looking = True
            self.run_worker(self._read, thread=True, group="look")

    def _read(self) -> None:
        folders = find_run_folders(self.folder)
        self._readers = {path: self._readers.get(path) or RunReader(path) for path in folders}
        views = [view for reader in self._readers.values() if (view := reader.look()).state != "gone"]
        if not get_current_worker().is_cancelled:
            self.post_message(RunsRead(views))

    def on_runs_read(self, message: RunsRead) -> None:
        self._looking = False
        table = self.query_one(RunTable)
        table.show(message.views)
        self._show_around(table)
        if not message.views:
            self.post_message(RunTaken(None))
        if self.focused is None and table.display and not self.query_one("#filter").display:
            table.focus()

    def _show_around(self, table: RunTable) -> None:
        """Update what surrounds the rows: the hint where there are none, the line about the current run."""
        table.display = table.row_count > 0
        empty = self.query_one("#empty", Static)
        empty.display = not table.display
        keys = {mode: shown_key(self.app, f"mode.{mode}", key) for mode, key in (("train", "2"), ("chat", "4"))}
        if table.filter:
            empty.update(line(f"No run matches {table.filter!r}. Escape shows all."))
        else:
            unread = why_unread(self.folder)
            empty.update(line(unread) if unread else paragraphs(_FIRST.format(folder=self.folder, **keys)))
        self._show_current(table.current)

    def _show_current(self, view: RunView | None) -> None:
        settings, problem = Text(""), Text("")
        if view is not None:
            problem = line(view.problem)
            if view.config is not None:
                config = view.config
                what = f"{config.irm} IRM, layers {config.layers}, site {config.site}, {config.quant}, seed {config.seed}"
                adapter = f"   adapter {view.adapter}" if view.adapter else ""
                settings = line(f"{view.path}{adapter}   {config.data} on {config.model}   {what}")
            else:
                settings = line(str(view.path))
        self.query_one("#settings", Static).update(settings)
        self.query_one("#problem", Static).update(problem)

    def on_data_table_row_highlighted(self) -> None:
        current = self.query_one(RunTable).current
        self._show_current(current)
        if current is not None and self.is_current:
            self.post_message(RunTaken(current.path))

    # Filter, order, marks

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        return action != "filter" or self.focused is not self.query_one("#filter")  # there it is text

    def action_filter(self) -> None:
        field = self.query_one("#filter", Input)
        field.display = True
        self.set_focus(field)  # at once

    def action_unfilter(self) -> None:
        field = self.query_one("#filter", Input)
        field.value, field.display = "", False
        self.query_one(RunTable).focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        table = self.query_one(RunTable)
        table.filter = event.value
        table.show()
        self._show_around(table)

    def on_input_submitted(self) -> None:
        self.query_one(RunTable).focus()

    def on_data_table_header_selected(self, event: DataTable.HeaderSelected) -> None:
        column = event.column_key.value
        if column in ORDERS:
            self._sort(column, not self._descending if column == self.query_one(RunTable).sort_by else False)

    @property
    def _descending(self) -> bool:
        return self.query_one(RunTable).descending

    def action_sort(self) -> None:
        columns = list(ORDERS)
        self._sort(columns[(columns.index(self.query_one(RunTable).sort_by) + 1) % len(columns)], False)

    def action_reverse(self) -> None:
        self._sort(self.query_one(RunTable).sort_by, not self._descending)

    def _sort(self, column: str, descending: bool) -> None:
        table = self.query_one(RunTable)
        table.sort_by, table.descending = column, descending
        table.show()
        self.post_message(SortChanged(column, descending))
        self.notify(f"sorted by {column}{', reversed' if descending else ''}", timeout=2, markup=False)

    def action_mark(self) -> None:
        self.query_one(RunTable).mark()
