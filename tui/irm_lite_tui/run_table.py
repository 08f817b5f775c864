"""The table of runs."""

from pathlib import Path

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widgets import DataTable, Static

from irm_lite.errors import IrmLiteError
from irm_lite.run import RunDirectory, find_runs

_COLUMNS = ("run", "state", "base", "data", "IRM", "step", "best NLL", "created")


class RunTable(Vertical):
    """A row for each run directory under a folder; text from files is shown as text."""

    DEFAULT_CSS = """
    RunTable DataTable { height: 1fr; }
    RunTable #empty { padding: 1 2; color: $text-muted; }
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def compose(self) -> ComposeResult:
        yield Static(Text(f"No runs in {self.folder} yet. Make one: irm-lite demo"), id="empty")
        yield DataTable(cursor_type="row", zebra_stripes=True)

    def on_mount(self) -> None:
        self.query_one(DataTable).add_columns(*_COLUMNS)
        self.refresh_runs()

    def refresh_runs(self) -> None:
        """Read the folder again."""
        runs = find_runs(self.folder)
        table = self.query_one(DataTable)
        table.clear()
        for run in runs:
            table.add_row(*(Text(cell) for cell in _row(run)))
        table.display = bool(runs)
        self.query_one("#empty").display = not runs


def _row(run: RunDirectory) -> tuple[str, ...]:
    try:
        config, created = run.config(), run.created()
    except IrmLiteError as error:
        return (run.path.name, "unreadable", str(error), "", "", "", "", "")
    step, best, state = "-", "-", "unfinished"
    for event in run.events():
        if event.get("kind") == "step":
            step = f"{event.get('step')}/{event.get('max_steps')}"
        elif event.get("kind") == "end":
            state = str(event.get("reason", "ended"))
            if isinstance(event.get("best_nll"), float):
                best = f"{event['best_nll']:.3f}"
    return (run.path.name, state, config.model, config.data, config.irm, step, best, created)
