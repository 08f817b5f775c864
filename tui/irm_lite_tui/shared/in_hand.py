"""The run in hand: the one under the cursor in Runs, or the newest. The screens of one run open on it."""

from pathlib import Path
from typing import Protocol, runtime_checkable

from irm_lite.runs.directory import find_runs


@runtime_checkable
class TakesRun(Protocol):
    """A screen that shows one run at a time; `taken` is the run that it was handed last."""

    taken: Path | None

    def take_run(self, path: Path) -> None:
        """Show this run. Of the one that it has already: what has been made of it meanwhile."""

    def keeps(self) -> str:
        """Why it stays with the run that it has unless it is told to change; empty where nothing keeps it."""


def newest_run(folder: Path) -> Path | None:
    """The newest run directly under `folder`; None where there is none, or where it cannot be read."""
    try:
        return next((run.path for run in find_runs(folder)), None)
    except OSError:  # one was deleted meanwhile
        return None


def next_run(folder: Path, path: Path | None) -> Path | None:
    """The next older run under `folder`, behind the oldest the newest; None where there is none."""
    try:
        paths = [run.path for run in find_runs(folder)]
    except OSError:
        return path
    return paths[(paths.index(path) + 1) % len(paths)] if path in paths else next(iter(paths), None)
