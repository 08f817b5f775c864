"""The screen of runs alone, and trainings that somebody else has started."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from textual.app import App
from textual.pilot import Pilot

from irm_lite.runs.directory import RunDirectory
from irm_lite_tui.runs.screen import RunsScreen
from irm_lite_tui.runs.table import RunTable
from support.tui_helpers import until

TRAINING = """
import sys, threading
from irm_lite.cli.interrupt import graceful
from irm_lite.cli.output import Output
from irm_lite.runs.directory import RunDirectory
run = RunDirectory(sys.argv[1])
with run.lock.held(), graceful(Output(None)) as should_stop:
    print("held", flush=True)
    while not should_stop():
        threading.Event().wait(0.02)
    run.events.append("end", reason="interrupted", step=3)
"""


class RunsApp(App[None]):
    """An app with this screen alone; keeps what it was asked to open and what it notified."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self.copied = ""

    def on_mount(self) -> None:
        self.push_screen(RunsScreen(self.folder))

    def copy_to_clipboard(self, text: str) -> None:
        self.copied = text


@contextmanager
def headless_training(run: RunDirectory, shell_script: bool = False) -> Iterator["subprocess.Popen[str]"]:
    """A process of somebody else's that holds the run's lock until it is asked to stop, as irm-lite train does."""
    command = [sys.executable, "-c", TRAINING, str(run.path)]
    if shell_script:  # whose background jobs ignore SIGINT
        command = ["sh", "-c", "trap '' INT; exec \"$@\"", "sh", *command]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def rows(app: App[Any]) -> dict[str, list[str]]:
    """What stands in the table, by the first column."""
    table = app.screen.query_one(RunTable)
    found = [[cell.plain.strip() for cell in table.get_row_at(row)] for row in range(table.row_count)]
    return {row[0]: row for row in found}


async def listed(pilot: Pilot[None], count: int) -> None:
    def there() -> bool:
        screen = pilot.app.screen
        return isinstance(screen, RunsScreen) and screen.query_one(RunTable).row_count == count

    await until(pilot, there, f"{count} runs in the table")


def select(app: App[Any], name: str) -> None:
    table = app.screen.query_one(RunTable)
    table.move_cursor(row=list(rows(app)).index(name))


def notified(app: App[Any]) -> str:
    return "\n".join(each.message for each in app._notifications)
