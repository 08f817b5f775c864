"""Writing into a run that fails, for a full disk say, reported in one line with the fix."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from irm_lite.core.errors import TrainingFailed


@contextmanager
def write_errors_as_failure(what: str, run: Path) -> Iterator[None]:
    """Within: an OSError is TrainingFailed, which names `what` was being written into the run directory `run`."""
    try:
        yield
    except OSError as error:
        reason = " ".join(str(error.strerror or error).split())[:200]
        hint = f"make space, then go on with irm-lite train --resume {run}"
        raise TrainingFailed(f"{what} of {run} cannot be written ({reason})", hint) from error
