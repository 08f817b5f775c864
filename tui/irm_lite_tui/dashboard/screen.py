"""A training while it runs, started here or elsewhere: its run directory is all that is read."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.screen import Screen
from textual.timer import Timer
from textual.widgets import Footer, Static
from textual.worker import get_current_worker

from irm_lite_tui.dashboard.live_heatmap import LiveHeatmap
from irm_lite_tui.dashboard.messages import RunRead
from irm_lite_tui.dashboard.numbers import RunNumbers
from irm_lite_tui.dashboard.reader import DashboardReader, Reading
from irm_lite_tui.dashboard.samples import SampleColumns
from irm_lite_tui.dashboard.stopping import stop_run
from irm_lite_tui.settings.keys import shown_key
from irm_lite_tui.shared.copying import copy
from irm_lite_tui.shared.curve_plot import CurvePlot
from irm_lite_tui.shared.messages import Mode, OpenIn, RunTaken
from irm_lite_tui.shared.mode_bar import ModeBar
from irm_lite_tui.shared.resting import is_seen
from irm_lite_tui.shared.text import line
from irm_lite_tui.watch.children import Child, ChildEnded, ChildLine, child_of
from irm_lite_tui.watch.run_state import RunView

EVERY_SECONDS = 0.5
_THEN = {"h": ("heatmap", "looks at it"), "t": ("chat", "talks to it"), "e": ("export", "exports it")}  # by key


class DashboardScreen(Screen[None]):
    """`path` is the run. `arguments`, if given, start an `irm-lite` that writes it.

    `scratch` is a temporary file that those name.
    """

    CSS_PATH = "screen.tcss"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (60, "-normal")]  # noqa: RUF012 - as Textual declares it
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "back", "Back", id="dashboard.back"),
        Binding("x", "stop", "Stop", id="dashboard.stop"),
        Binding("r", "resume", "Resume", id="dashboard.resume"),
        Binding("o", "folder", "Path", tooltip="Show the run's path and copy it", id="dashboard.folder"),
        Binding("h", "open_in('heatmap')", "Heatmap", id="dashboard.heatmap"),
        Binding("t", "open_in('chat')", "Chat", id="dashboard.chat"),
        Binding("e", "open_in('export')", "Export", id="dashboard.export"),
    ]

    def __init__(self, path: Path | None = None, arguments: Sequence[str] = (), scratch: Path | None = None) -> None:
        super().__init__()
        self.path = self.taken = path
        self.arguments, self.scratch = arguments, scratch
        self.reading: Reading | None = None
        self._reader = DashboardReader(path) if path is not None else None
        self._timer: Timer | None = None
        self._child: Child | None = None
        self._child_says, self._failure, self._made = "", "", ""
        self._seen_at_work = False  # the child has held the run's lock
        self._failed: int | None = None  # the process that the failure is of
        self._busy = False

    def compose(self) -> ComposeResult:
        yield ModeBar()
        yield RunNumbers()
        yield Static("", id="note")
        with Horizontal(id="pictures"):
            yield CurvePlot("loss and validation NLL", id="curves")
            yield LiveHeatmap()
        yield SampleColumns(id="samples")
        yield Footer()

    def on_mount(self) -> None:
        if self.arguments:
            self._start(self.arguments, self.scratch)
        if self.path is None or self._reader is None:
            self._note("No run chosen: escape, then enter on one.", failed=False)
            return
        self._timer = self.set_interval(EVERY_SECONDS, self._look)
        self.post_message(RunTaken(self.path))

    def on_screen_suspend(self) -> None:
        if self._timer is not None and not is_seen(self):
            self._timer.pause()

    def on_screen_resume(self) -> None:
        if self._timer is not None:
            self._timer.resume()
            self._look()

    def take_run(self, path: Path) -> None:
        """See shared/in_hand.py: another dashboard in place of this one."""
        if path != self.path:
            self.app.switch_screen(DashboardScreen(path))

    def keeps(self) -> str:
        """See shared/in_hand.py: what it shows is all in the run's directory."""
        return ""

    def on_unmount(self) -> None:
        if self._child is not None:
            self._child.target = self.app  # which says how it ended

    # Reading

    def _look(self) -> None:
        if not self._busy:
            self._busy = True
            self.run_worker(self._read, thread=True, group="look")

    def _read(self) -> None:
        assert self._reader is not None
        reading = self._reader.read()
        if not get_current_worker().is_cancelled:
            self.post_message(RunRead(reading))

    async def on_run_read(self, message: RunRead) -> None:
        self._busy = False
        reading = message.reading
        holder = reading.view.holder
        if holder is not None:
            self._seen_at_work = True
            if holder.pid != self._failed:  # it was resumed, here or elsewhere
                self._failure = ""
        elif not self._seen_at_work and (self._child is not None or child_of(reading.view.path) is not None):
            reading = replace(reading, view=replace(reading.view, state="starting", problem=""))
        changed = self.reading != reading
        self.reading = reading
        if changed:
            await self._show(reading)
        self._show_note(reading)

    async def _show(self, reading: Reading) -> None:
        self.query_one(RunNumbers).show(reading)
        self.query_one(CurvePlot).show({"loss": reading.loss, "validation": reading.validation})
        self.query_one(LiveHeatmap).show(reading.live)
        samples, view = self.query_one(SampleColumns), reading.view
        samples.awaits((view.config.eval_steps if view.config else 0) if view.state in ("starting", "running") else None)
        await samples.show(reading.samples, reading.validation)

    def _show_note(self, reading: Reading) -> None:
        """Show one line: the failure, the start, the problem, or a warning: that the runtimes disagree, or the newest."""
        view = reading.view
        if self._failure:
            self._note(self._failure, failed=True)
        elif view.state == "done" and (self._child is not None or self._made):
            self._note(self._made or self._child_says, failed=False)
        elif view.state == "starting":
            self._note(self._child_says or "starting: the base is loaded first", failed=False)
        elif view.problem:
            self._note(view.problem, failed=view.state in ("failed", "damaged", "gone"))
        elif reading.warnings:
            self._note(f"warning: {reading.disagreement or reading.warnings[-1]}", failed=False)
        else:
            self._note("long events file: the curve is drawn from samples of it" if reading.sampled else "", failed=False)

    def _note(self, text: str, failed: bool) -> None:
        note = self.query_one("#note", Static)
        note.update(line(text))
        note.set_class(failed, "failed")
        note.display = bool(text)

    # The process

    def _start(self, arguments: Sequence[str], scratch: Path | None = None) -> None:
        self._failure, self._child_says, self._made, self._seen_at_work = "", "", "", False
        self._child = Child(arguments, self, scratch)
        try:
            self._child.start()
        except OSError as error:
            self._failure, self._child = f"the training cannot be started ({error.strerror})", None

    def on_child_line(self, message: ChildLine) -> None:
        if message.stream == "err" and message.text.strip():
            self._child_says = message.text

    def on_child_ended(self, message: ChildEnded) -> None:
        message.stop()
        self._child = None
        if message.code == 0:
            keys = (f"{shown_key(self.app, f'dashboard.{name}', key)} {what}" for key, (name, what) in _THEN.items())
            self._made = f"done: {', '.join(keys)}"
        elif message.code != 130:
            self._failure = message.last or f"the training ended with exit code {message.code}"
            self._failed = message.child.pid
            self._note(self._failure, failed=True)
        if not is_seen(self) and self.path is not None:
            self._say(f"{self.path.name}: {self._failure or 'the training has ended'}", failed=bool(self._failure))
        if self._reader is not None:
            self._look()

    # What the keys do

    def _say(self, text: str, failed: bool = False) -> None:
        self.notify(line(text).plain, severity="error" if failed else "information", markup=False)

    def _view(self) -> RunView | None:
        """The run, if it exists; else says that it does not."""
        view = None if self.reading is None else self.reading.view
        if view is None or view.state == "gone" or (view.state == "starting" and view.config is None):
            chat = shown_key(self.app, "mode.chat", "4")
            self._say(f"there is no run here yet: {chat} asks a vector that ships with irm-lite meanwhile", failed=True)
            return None
        return view

    def action_back(self) -> None:
        if len(self.app.screen_stack) > 1:
            self.app.pop_screen()

    def action_stop(self) -> None:
        if self._child is not None and (self.reading is None or self.reading.view.state in ("starting", "done")):
            self._child.stop()
            self._say("stopping")
            return
        view = self._view()
        if view is not None:
            stop_run(self, view.path, self._say)

    def action_resume(self) -> None:
        view = self._view()
        if view is None:
            return
        if view.state not in ("stopped", "failed", "starting"):
            self._say(f"the run is {view.state}: there is nothing to resume", failed=True)
        elif self._child is not None or child_of(view.path) is not None:
            self._say("it is starting already", failed=True)
        else:
            self._start(["train", "--resume", str(view.path), "--json"])
            self._say("resuming: the base is loaded first")

    def action_folder(self) -> None:
        view = self._view()
        if view is not None:
            path = str(view.path.resolve())
            copy(self.app, path, path)

    def action_open_in(self, mode: Mode) -> None:
        view = self._view()
        if view is not None:
            self.post_message(OpenIn(mode, view.path))
