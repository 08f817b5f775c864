"""The application: for now one screen that lists the runs."""

import sys
from pathlib import Path
from typing import ClassVar

from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import Footer, Header

from irm_lite_tui.run_table import RunTable


class IrmLiteApp(App[None]):
    """Runs under one folder, newest first."""

    TITLE = "irm-lite"
    BINDINGS: ClassVar[list[BindingType]] = [Binding("q", "quit", "Quit"), Binding("r", "refresh", "Refresh")]

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def compose(self) -> ComposeResult:
        yield Header()
        yield RunTable(self.folder)
        yield Footer()

    def on_mount(self) -> None:
        self.sub_title = str(self.folder)

    def action_refresh(self) -> None:
        self.query_one(RunTable).refresh_runs()


def main() -> None:
    """Open the UI on ./runs."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path("runs")
    IrmLiteApp(folder).run()
