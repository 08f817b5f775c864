"""Everything that the dashboard shows of a run, read in a thread as one immutable Reading."""

from dataclasses import dataclass
from pathlib import Path

from irm_lite.core.files.reading import require_ordinary
from irm_lite.core.types import FloatArray
from irm_lite.runs.directory import LARGEST_LIVE, RunDirectory
from irm_lite_tui.shared.plot import Point
from irm_lite_tui.watch.run_log import Sample
from irm_lite_tui.watch.run_state import RunReader, RunView


@dataclass(frozen=True, eq=False)  # an array has no single answer to ==
class Live:
    """The newest mean |IRM output| (L, H), and the date of its file."""

    values: FloatArray
    written: float


@dataclass(frozen=True)
class Reading:
    """One look at a run during its training. Rates and sizes are the newest event's."""

    view: RunView
    loss: list[Point]
    validation: list[Point]
    base_nll: float | None
    learning_rate: float | None
    tokens_per_second: float | None
    eta_seconds: float | None
    memory_bytes: float | None
    sound: tuple[int, int] | None
    about: str
    samples: list[Sample]
    warnings: list[str]
    disagreement: str
    sampled: bool
    live: Live | None


class DashboardReader:
    """Reads one run again and again. Belongs to one thread at a time."""

    def __init__(self, path: Path) -> None:
        self._reader = RunReader(path)
        self._live: Live | None = None

    def read(self) -> Reading:
        """The run as it is now. Raises nothing."""
        view, log = self._reader.look(), self._reader.log
        self._read_live(self._reader.directory)
        return Reading(
            view,
            log.loss.points,
            log.validation.points,
            log.base_nll,
            log.learning_rate.last,
            log.tokens_per_second,
            log.eta_seconds,
            log.memory_bytes,
            log.sound,
            log.about,
            list(log.samples),
            list(log.warnings),
            log.disagreement,
            log.sampled,
            self._live,
        )

    def _read_live(self, run: RunDirectory) -> None:
        """The live snapshot, if it is another than before; one that cannot be read leaves the one before."""
        try:
            facts = run.live.stat()
        except OSError:
            self._live = None
            return
        if self._live is not None and facts.st_mtime == self._live.written:
            return
        import numpy as np
        from safetensors import SafetensorError, safe_open

        try:
            require_ordinary(run.live, LARGEST_LIVE)
            with safe_open(run.live, framework="numpy") as file:
                values = np.asarray(file.get_tensor("mean_abs"), dtype=np.float32)
        except (OSError, SafetensorError, KeyError, ValueError, TypeError, AttributeError):  # NumPy lacks some types
            return
        if values.ndim == 2 and values.size and np.isfinite(values).all():
            self._live = Live(values, facts.st_mtime)
