"""What the keys do with the run under the cursor: watch, compare, resume, stop, rename, delete, open elsewhere."""

from pathlib import Path

from textual.screen import Screen

from irm_lite.core.errors import IrmLiteError
from irm_lite_tui.dashboard.stopping import stop_run
from irm_lite_tui.runs.folders import open_folder
from irm_lite_tui.runs.messages import RunActionDone
from irm_lite_tui.runs.table import RunTable
from irm_lite_tui.shared.ask import AskScreen, NameScreen
from irm_lite_tui.shared.copying import copy
from irm_lite_tui.shared.messages import DemoAsked, Mode, OpenIn
from irm_lite_tui.shared.text import line
from irm_lite_tui.watch import run_actions
from irm_lite_tui.watch.children import Child, ChildEnded, child_of
from irm_lite_tui.watch.run_state import RunView


class RunActions(Screen[None]):
    """The actions of a screen that shows a RunTable."""

    def look(self) -> None:
        """Read the folder of runs again: one of them has changed."""
        raise NotImplementedError

    def _current(self) -> RunView | None:
        view = self.query_one(RunTable).current
        if view is None:
            self._say("there is no run under the cursor", failed=True)
        return view

    def _say(self, text: str, failed: bool = False) -> None:
        self.notify(line(text).plain, severity="error" if failed else "information", markup=False)

    def on_data_table_row_selected(self) -> None:
        self.action_watch()

    def action_watch(self) -> None:
        table = self.query_one(RunTable)
        if table.empty:
            self.post_message(DemoAsked())
            return
        view = self._current()
        if view is not None and view.config is None:
            self._say(view.problem, failed=True)
        elif view is not None:
            from irm_lite_tui.dashboard.screen import DashboardScreen

            self.app.push_screen(DashboardScreen(view.path))

    def action_compare(self) -> None:
        table = self.query_one(RunTable)
        paths = list(table.marked)
        if len(paths) == 1 and table.current is not None and table.current.path not in paths:
            paths.append(table.current.path)
        if len(paths) != 2:
            self._say("mark two runs with space, then compare", failed=True)
            return
        from irm_lite_tui.runs.compare import CompareScreen

        self.app.push_screen(CompareScreen(paths[0], paths[1]))

    def action_resume(self) -> None:
        view = self._current()
        if view is None:
            return
        if view.state in ("running", "damaged", "done"):
            self._say(f"{view.name} is {view.state_text}: there is nothing to resume", failed=True)
            return
        if child_of(view.path) is not None:
            self._say(f"{view.name} is starting already", failed=True)
            return
        child = Child(["train", "--resume", str(view.path), "--json"], self)
        try:
            child.start()
        except OSError as error:
            self._say(f"the training cannot be started ({error.strerror})", failed=True)
        else:
            self._say(f"resuming {view.name}: the base is loaded first")

    def on_child_ended(self, message: ChildEnded) -> None:
        message.stop()
        if message.code not in (0, 130):
            self._say(message.last or f"the training ended with exit code {message.code}", failed=True)
        self.look()

    def action_stop(self) -> None:
        view = self._current()
        if view is not None:
            stop_run(self, view.path, self._say)

    def action_rename(self) -> None:
        view = self._current()
        if view is None:
            return
        path = view.path

        def renamed(name: str | None) -> None:
            if name is not None:
                self.query_one(RunTable).go_to(path.with_name(name.strip()))
                self.look()

        self.app.push_screen(
            NameScreen(f"New name of {path.name}", path.name, lambda name: run_actions.rename(path, name)), renamed
        )

    def action_delete(self) -> None:
        view = self._current()
        if view is None:
            return
        path = view.path

        def answered(yes: bool | None) -> None:
            if yes:
                self.run_worker(lambda: self._delete(path), thread=True, group="delete")

        detail = f"{path}\nwith its checkpoints, recordings and exports. This cannot be undone."
        self.app.push_screen(AskScreen(f"Delete the run {path.name}?", "Delete", detail), answered)

    def _delete(self, path: Path) -> None:
        try:
            run_actions.delete(path)
        except IrmLiteError as error:
            self.post_message(RunActionDone(str(error), failed=True))
        else:
            self.post_message(RunActionDone(f"{path.name} is deleted", failed=False))

    def on_run_action_done(self, message: RunActionDone) -> None:
        self._say(message.text, message.failed)
        self.look()

    def action_folder(self) -> None:
        view = self._current()
        if view is not None:
            path = str(view.path.resolve())
            if open_folder(view.path):
                self._say(f"opened: {path}")
            else:
                copy(self.app, path, path)

    async def action_open_in(self, mode: Mode) -> None:
        if self.query_one(RunTable).empty:  # the screen itself says what fills it
            await self.run_action(f"app.open_mode('{mode}')")
            return
        view = self._current()
        if view is not None:
            self.post_message(OpenIn(mode, view.path))
