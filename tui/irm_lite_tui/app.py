"""The application: modes, keys, themes, preferences. What is shown is in a folder for each mode."""

import asyncio
import os
import signal
from collections.abc import Callable, Iterable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

from textual.app import App, SystemCommand
from textual.binding import Binding, BindingType
from textual.dom import DOMNode
from textual.reactive import var
from textual.screen import Screen

from irm_lite.core.errors import InputError, RunError
from irm_lite.core.visible_text import visible
from irm_lite_tui.heatmap.messages import PaintChanged
from irm_lite_tui.runs.messages import SortChanged
from irm_lite_tui.settings.keys import complaints, shown_key
from irm_lite_tui.settings.lenient_input import forgive_bytes
from irm_lite_tui.settings.losing import losses
from irm_lite_tui.settings.preferences import load_preferences, save_preferences
from irm_lite_tui.settings.themes import DARK, LIGHT
from irm_lite_tui.shared.ask import AskScreen
from irm_lite_tui.shared.in_hand import TakesRun, newest_run, next_run
from irm_lite_tui.shared.messages import DemoAsked, OpenIn, RunTaken
from irm_lite_tui.shared.mode_bar import TITLES, ModeBar
from irm_lite_tui.watch.children import ChildEnded, child_of, running_children


def _screen(mode: str, path: Path | None = None) -> Screen[Any]:
    """The screen of a mode; its module is imported when it is first opened."""
    module = import_module(f"irm_lite_tui.{mode}.screen")
    screen: Screen[Any] = getattr(module, f"{mode.capitalize()}Screen")(path)
    return screen


class IrmLiteApp(App[None], inherit_bindings=False):
    """`folder` holds the runs."""

    TITLE = "irm-lite"
    CSS_PATH = "app.tcss"
    DEFAULT_MODE = "runs"
    MODES: ClassVar[dict[str, str | Callable[[], Screen[Any]]]] = {mode: partial(_screen, mode) for mode in TITLES}
    BINDINGS: ClassVar[list[BindingType]] = [
        *(
            Binding(str(number), f"open_mode('{mode}')", title, show=False, id=f"mode.{mode}")
            for number, (mode, title) in enumerate(TITLES.items(), 1)
        ),
        Binding("f4", "next_run", "Next run", show=False, tooltip="Next run, or the demo where there is none", id="run.next"),
        Binding("ctrl+pagedown,f9", "turn_mode(1)", "Next screen", show=False, priority=True, id="mode.next"),
        Binding("ctrl+pageup,f8", "turn_mode(-1)", "Previous screen", show=False, priority=True, id="mode.before"),
        Binding(
            "ctrl+p", "command_palette", "palette", show=False, priority=True, tooltip="Open the command palette", id="palette"
        ),
        Binding("question_mark", "help", "Help", key_display="?", id="help"),
        Binding("q", "quit", "Quit", show=False, id="quit"),
        Binding("ctrl+c", "help_quit", "Say how to quit", show=False, system=True, id="quit.hint"),
    ]

    in_hand: var[Path | None] = var(None)

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self.set_reactive(IrmLiteApp.in_hand, newest_run(folder))
        self._modes["runs"] = partial(_screen, "runs", folder)
        for mode in ("heatmap", "chat", "export"):
            self._modes[mode] = partial(self._screen_in_hand, mode)
        self.preferences, self._complaints = load_preferences()
        self._clashes: set[str] = set()  # reported already
        for theme in (DARK, LIGHT):
            self.register_theme(theme)
        if self.preferences.theme not in self.available_themes:
            self._complaints.append(f"there is no theme {self.preferences.theme!r}: the palette (ctrl+p) lists them")
            self.preferences.theme = DARK.name
        self.set_reactive(App.theme, self.preferences.theme)  # before the first frame takes its colours

    def on_mount(self) -> None:
        if os.name != "nt":  # whose loops take no signals
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self.exit)  # leaves the terminal as it was
        self.set_keymap(self.preferences.keys)
        if self.preferences.keys:  # looking at the ids imports all screens
            self.run_worker(self._check_keys, thread=True)
        self.theme_changed_signal.subscribe(self, lambda theme: self._keep_theme(theme.name))
        for complaint in self._complaints:
            self._warn(complaint)

    # Preferences

    def _keep_theme(self, name: str) -> None:
        if name != self.preferences.theme:
            self.preferences.theme = name
            self._save("theme")

    def on_sort_changed(self, message: SortChanged) -> None:
        self.preferences.sort, self.preferences.descending = message.column, message.descending
        self._save("sort", "descending")

    def on_paint_changed(self, message: PaintChanged) -> None:
        self.preferences.colours, self.preferences.robust = message.colours, message.robust
        self._save("colours", "robust")

    def _save(self, *changed: str) -> None:
        complaint = save_preferences(self.preferences, *changed)
        if complaint:
            self._warn(complaint)

    def _warn(self, text: str) -> None:
        self.notify(visible(text), severity="warning", markup=False)

    def _check_keys(self) -> None:
        for complaint in complaints(self.preferences.keys):
            self._warn(complaint)

    def handle_bindings_clash(self, clashed_bindings: set[Binding], node: DOMNode) -> None:
        names = ", ".join(sorted(binding.id or binding.action for binding in clashed_bindings))
        if names not in self._clashes:  # Textual asks at every key
            self._clashes.add(names)
            self._warn(f"the keys of {names} are taken by other bindings: fix [keys] in tui.toml")

    # Modes

    async def action_open_mode(self, mode: str) -> None:
        if not self.screen.is_modal:
            await self.switch_mode(mode)
            self._hand_over()

    async def action_turn_mode(self, step: int) -> None:
        """As open_mode, and from within a field."""
        modes = list(TITLES)
        await self.action_open_mode(modes[(modes.index(self.current_mode) + step) % len(modes)])

    # The run in hand

    def _screen_in_hand(self, mode: str) -> Screen[Any]:
        return _screen(mode, self.in_hand)

    def on_run_taken(self, message: RunTaken) -> None:
        self.in_hand = message.path

    def _hand_over(self, told: bool = False) -> None:
        """Give the run in hand to the screen that is shown; one that is kept by its work takes another only when it is told to."""
        screen, run = self.screen, self.in_hand
        if run is None or not isinstance(screen, TakesRun):
            return
        why = screen.keeps() if screen.taken not in (None, run) else ""
        if told or not why:
            screen.take_run(run)
            screen.query(ModeBar).refresh()
        else:
            self.notify(visible(f"{why}: {shown_key(self, 'run.next', 'f4')} goes on to {run.name}"), markup=False)

    async def action_next_run(self) -> None:
        """The next older run, or train the demo's tone where there is none. A screen that stayed behind follows first."""
        screen = self.screen
        if screen.is_modal:
            return
        behind = isinstance(screen, TakesRun) and screen.taken not in (None, self.in_hand)
        if self.in_hand is None or not behind:
            self.in_hand = next_run(self.folder, self.in_hand)
        if self.in_hand is None:
            await self.on_demo_asked()
        else:
            self._hand_over(told=True)

    async def on_demo_asked(self, _message: DemoAsked | None = None) -> None:
        """Train, export and try the demo's tone, on a dashboard over the runs."""
        from irm_lite.config import TrainConfig
        from irm_lite.runs.directory import default_run
        from irm_lite_tui.dashboard.screen import DashboardScreen

        await self.switch_mode("runs")
        out = default_run(TrainConfig(), self.folder)
        if child_of(out) is None:
            self.push_screen(DashboardScreen(out, ["demo", "--no-first-answer", "--out", str(out), "--json"]))
        elif not (isinstance(self.screen, DashboardScreen) and self.screen.path == out):  # it loads its base: no run is there yet
            self.push_screen(DashboardScreen(out))

    # Paths that screens hand on

    async def on_open_in(self, message: OpenIn) -> None:
        """Open a path in a mode, in place of what that mode showed; asks first where work would be lost."""
        if message.mode == self.current_mode:
            return
        loss = losses(self._screens_of(message.mode))
        if not loss:
            await self._open_in(message)
            return

        async def answered(yes: bool | None) -> None:
            if yes:
                await self._open_in(message)

        self.push_screen(AskScreen(f"Open {message.path.name} in {TITLES[message.mode]}?", "Open", loss), answered)

    async def _open_in(self, message: OpenIn) -> None:
        if message.mode != "train":
            self.in_hand = message.path
        await self.remove_mode(message.mode)
        self.add_mode(message.mode, partial(_screen, message.mode, message.path))
        await self.switch_mode(message.mode)

    def _screens_of(self, mode: str) -> list[Screen[Any]]:
        """The screens that are open in a mode."""
        try:
            return self.get_screen_stack(mode)
        except KeyError:
            return []

    def get_system_commands(self, screen: Screen[Any]) -> Iterable[SystemCommand]:
        for mode, title in TITLES.items():
            yield SystemCommand(title, f"Go to {title}", partial(self.action_open_mode, mode))
        if unload := getattr(screen, "action_unload", None):
            yield SystemCommand("Unload", "End the chat's server to free its memory", unload)
        yield from super().get_system_commands(screen)

    def on_child_ended(self, message: ChildEnded) -> None:
        """A child ended whose screen is closed already."""
        if message.code not in (0, 130):
            self._warn(message.last or f"a child process ended with exit code {message.code}")

    # Help and quitting

    def action_help(self) -> None:
        """Show the keys, or hide them."""
        if self.screen.query("HelpPanel"):
            self.action_hide_help_panel()
        else:
            self.action_show_help_panel()

    async def action_quit(self) -> None:
        """Quit; asks first where work would be lost, or where a child of this UI still runs, which will outlive it."""
        children, loss = running_children(), losses(screen for mode in TITLES for screen in self._screens_of(mode))
        if not children and not loss:
            self.exit()
            return
        if isinstance(self.screen, AskScreen):
            return
        works, them = ("1 process", "it") if len(children) == 1 else (f"{len(children)} processes", "them")
        goes_on = f"{works} that you started here will go on. Open irm-lite again to watch or stop {them}." if children else ""
        detail = "\n".join(filter(None, (loss, goes_on)))

        def answered(yes: bool | None) -> None:
            if yes:
                for child in children:
                    child.let_go()
                self.exit()

        self.push_screen(AskScreen("Quit while work goes on?" if children else "Quit?", "Quit", detail), answered)


def main() -> None:
    """Open the UI on ./runs. Raises InputError on a terminal that cannot show it, RunError where the application crashed."""
    if os.environ.get("TERM") == "dumb":
        raise InputError("this terminal (TERM=dumb) cannot show the application", "use the verbs (irm-lite --help)")
    forgive_bytes()
    app = IrmLiteApp(Path("runs"))
    app.run()
    if app.return_code:
        raise RunError("the application crashed", "report what it printed")
