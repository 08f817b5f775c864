"""The dashboard alone."""

from textual.app import App
from textual.widgets import Static

from irm_lite_tui.dashboard.numbers import RunNumbers
from irm_lite_tui.dashboard.screen import DashboardScreen
from irm_lite_tui.shared.messages import OpenIn


class DashboardApp(App[None]):
    """An app with this screen alone; keeps what it was asked to open."""

    def __init__(self, screen: DashboardScreen) -> None:
        super().__init__()
        self.dashboard = screen
        self.opened: list[OpenIn] = []

    def on_mount(self) -> None:
        self.push_screen(self.dashboard)

    def on_open_in(self, message: OpenIn) -> None:
        self.opened.append(message)

    @property
    def state(self) -> str:
        return "" if self.dashboard.reading is None else self.dashboard.reading.view.state

    @property
    def note(self) -> str:
        return str(self.dashboard.query_one("#note", Static).render())

    @property
    def numbers(self) -> str:
        return self.dashboard.query_one(RunNumbers).render().plain
