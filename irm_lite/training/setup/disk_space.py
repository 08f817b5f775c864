"""Whether a run directory has the disk space that a training will need."""

from irm_lite.config import TrainConfig
from irm_lite.core.errors import RunError
from irm_lite.core.files.atomic import free_space
from irm_lite.runs.directory import RunDirectory
from irm_lite.steering.irm import IRM
from irm_lite.training.memory_fit import optimiser_bytes

REST_BYTES = 32_000_000  # the live snapshot, short files, what file systems round up
_STEP_BYTES = 1000  # of a step in events.jsonl


def require_disk_space(config: TrainConfig, run: RunDirectory, irm: IRM, steps: int) -> int:
    """Bytes by which the run directory will grow at the most. Raises RunError where fewer are free.

    It will hold the checkpoints that are kept and one that is being written, each with the best IRM beside its own; the run's IRM
    and the next one; and the rest. What it holds already is subtracted.
    """
    weights = sum(parameter.nbytes for parameter in irm.parameters())
    count, each = sum(parameter.numel() for parameter in irm.parameters()), next(irm.parameters()).element_size()
    checkpoint = 2 * weights + optimiser_bytes(count, each, config.optim)
    full = (config.save_total_limit + 1) * checkpoint + 2 * weights + _STEP_BYTES * steps + REST_BYTES
    needed = full - run.checkpoints.size() - run.irm_size()
    free = free_space(run.path)
    if needed > free:
        raise RunError(
            f"{run.path} needs {needed / 1e9:.2f} GB of disk, {checkpoint / 1e9:.2f} a checkpoint, and {free / 1e9:.2f} are free",
            "make space, or choose another place or a smaller --save-total-limit",
        )
    return max(needed, 0)
