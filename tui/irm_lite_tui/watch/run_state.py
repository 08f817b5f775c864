"""A run as the screens show it: its settings, its state and what its events say. Read in a thread, shown by handlers."""

import os
import time
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from irm_lite.config import KINDS, TrainConfig
from irm_lite.core.errors import IrmLiteError
from irm_lite.core.files.reading import read_json
from irm_lite.runs.directory import RunDirectory
from irm_lite.runs.lock import Holder
from irm_lite_tui.watch.run_log import RunLog, number

State = Literal["starting", "running", "stopped", "done", "failed", "damaged", "gone"]


@dataclass(frozen=True)
class RunView:
    """One look at a run. `problem` is one line, empty where all is well."""

    path: Path
    state: State
    problem: str = ""
    config: TrainConfig | None = None
    created: float = 0.0  # seconds since the epoch
    step: int = 0
    max_steps: int = 0
    loss: list[float] = field(default_factory=list)
    best_nll: float | None = None
    fidelity: float | None = None
    score: float | None = None  # of the vector's text
    holder: Holder | None = None
    adapter: str = ""  # of an exported adapter: its fidelity, or a dash where none was kept; empty: there is none

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def state_text(self) -> str:
        """The state in words: a process of another machine cannot be looked at from here."""
        far = None if self.holder is None or self.holder.here else self.holder
        return f"running on {far.host}, not checked" if far else self.state


class RunReader:
    """Looks at one run again and again; what has not changed is not read twice. Belongs to one thread at a time."""

    def __init__(self, path: Path) -> None:
        self.directory = RunDirectory(path)
        self.log = RunLog(self.directory.events.path)
        self._stamp: tuple[float, ...] = ()
        self._config: TrainConfig | None = None
        self._problem, self._created = "", 0.0
        self._measured: tuple[float | None, float | None] = (None, None)
        self._adapter = ""

    def look(self) -> RunView:
        """The run as it is now. Raises nothing: what is wrong is in the view."""
        path = self.directory.path
        if not path.is_dir():
            return RunView(path, "gone", f"{path} no longer exists")
        self.log.read()
        stamp = tuple(map(written_at, (path / "run.toml", self.directory.fidelity, self.directory.default_adapter)))
        if stamp != self._stamp:
            self._stamp = stamp
            self._read_settings()
        holder = self.directory.lock.holder()
        state: State = _state(self.log, holder) if self._config is not None else "damaged"
        return RunView(
            path,
            state,
            self._problem or _complaint(self.log, state) or _far(path, holder),
            self._config,
            self._created,
            self.log.step,
            self.log.max_steps,
            self.log.loss.values,
            self.log.best_nll,
            *self._measured,
            holder,
            self._adapter,
        )

    def _read_settings(self) -> None:
        self._config, self._problem = None, ""
        try:
            self._config = self.directory.config()
            self._created = datetime.fromisoformat(self.directory.created()).timestamp()
        except IrmLiteError as error:
            self._problem = str(error)
        except (ValueError, OverflowError, OSError):
            self._created = self._stamp[0]
        found = _report(self.directory.fidelity)
        of_vector = found.get("fidelity"), _within(found, "score", "vector", "value")
        of_adapter = _within(found, "adapter", "fidelity"), _within(found, "adapter", "score", "value")
        there = self.directory.default_adapter.is_file()
        self._adapter = figure(number(of_adapter[0])) if there else ""
        leaves_as_adapter = self._config is not None and KINDS[self._config.irm].leaves_as == "adapter"
        fidelity, score = of_adapter if leaves_as_adapter and there else of_vector
        self._measured = number(fidelity), number(score)


def written_at(path: Path) -> float:
    """Seconds since the epoch; 0 where there is no such file."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _report(path: Path) -> dict[str, Any]:
    """What an export has measured; empty where there is nothing that can be read."""
    try:
        document = read_json(path, 1 << 22)
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


def _within(found: Any, *keys: str) -> Any:
    """What stands there under these keys, one in the other; None where nothing does."""
    for key in keys:
        found = found.get(key) if isinstance(found, dict) else None
    return found


def _state(log: RunLog, holder: Holder | None) -> State:
    if holder is not None:
        return "running"
    if log.end is None or log.end.reason == "interrupted":
        return "stopped"
    return "done" if log.end.best_nll is not None else "failed"


def _complaint(log: RunLog, state: State) -> str:
    if state == "failed" and log.end is not None:
        return log.end.reason
    if log.bad_lines:
        lines = "1 line" if log.bad_lines == 1 else f"{log.bad_lines} lines"
        return f"{lines} of events.jsonl cannot be read and are skipped"
    return ""


def _far(path: Path, holder: Holder | None) -> str:
    """What to do about a process on another machine."""
    if holder is None or holder.here:
        return ""
    return f"running on {holder.host}, not checked: if process {holder.pid} has ended there, remove {path / 'lock.holder'}"


def find_run_folders(folder: Path) -> list[Path]:
    """Folders directly under `folder` that are runs, or were about to become runs."""
    try:
        return [path for path in folder.iterdir() if _is_run(RunDirectory(path))]
    except OSError:
        return []


def _is_run(run: RunDirectory) -> bool:
    """Whether it is a run; False for a folder that we may not look into."""
    try:
        return run.started() or run.events.path.is_file()
    except OSError:
        return False


def why_unread(folder: Path) -> str:
    """Why the runs under `folder` cannot be listed; empty where they can, or where it is not there yet."""
    try:
        os.scandir(folder).close()
    except FileNotFoundError:
        return ""
    except OSError as error:
        return f"{folder} cannot be read ({error.strerror})"
    return ""


def figure(value: float | None, form: str = ".3f", unit: str = "") -> str:
    """A number, or a dash where there is none."""
    return "-" if value is None else f"{value:{form}}{unit}"


def age(created: float) -> str:
    """How long ago: 40 s, 5 min, 3 h, 2 d."""
    seconds = max(0.0, time.time() - created)
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def duration(seconds: float) -> str:
    """0:07, 12:30, 3:04:59."""
    whole = round(min(seconds, 1e9))
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


SIGNS = {"starting": "○", "running": "●", "done": "✓", "stopped": "■", "failed": "✗", "damaged": "!", "gone": "?"}
COLOURS = {
    "starting": "accent",
    "running": "accent",
    "done": "success",
    "stopped": "warning",
    "failed": "error",
    "damaged": "error",
    "gone": "error",
}
