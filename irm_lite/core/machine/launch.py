"""What launchers put into the environment: of this training, or left over from another job.

`accelerate launch` and torchrun tell each process its number by variables. transformers and accelerate obey these, and others by
which accelerate's own ways of training are chosen, wherever they find them: also in a shell that has them from a job of yesterday.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

TOLD = ("LOCAL_RANK", "RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")  # by every launcher, all of them
_OF_MPI = (  # accelerate takes these for the same, without the others
    *("PMI_SIZE", "PMI_RANK", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"),
    *(f"{mpi}_COMM_WORLD_{what}" for mpi in ("OMPI", "MV2") for what in ("SIZE", "RANK", "LOCAL_SIZE", "LOCAL_RANK")),
)
_ANOTHER_WAY = (  # of training, which irm-lite does not go
    *("ACCELERATE_USE_DEEPSPEED", "ACCELERATE_USE_FSDP", "ACCELERATE_USE_MEGATRON_LM", "ACCELERATE_USE_CPU"),
    *("ACCELERATE_MIXED_PRECISION", "ACCELERATE_DYNAMO_BACKEND", "ACCELERATE_TORCH_DEVICE"),
)
_NOTHING = ("", "0", "f", "false", "n", "no", "none", "off")
_UNASKED = ("FORK_LAUNCHED", "KUBEFLOW_TRAINER_SERVER_URL")  # the second: transformers reports there, whatever report_to says
_KEPT = "ACCELERATE_CPU_AFFINITY"  # changes no number
_aside: list[str] = []  # of the training at hand: what is not heeded though it asks for something


def launched() -> tuple[int, int] | None:
    """The number of this process, from 0, and of all of them; None where no launcher has started it."""
    local, rank, size = (_number(name) for name in TOLD[:3])
    if local is None or rank is None or not size or rank >= size or not all(map(os.environ.get, TOLD)):
        return None
    return rank, size


def shown() -> str:
    """The variables that make this process one of a launch, as in "LOCAL_RANK=0, RANK=0, WORLD_SIZE=2"."""
    return ", ".join(f"{name}={os.environ.get(name, '')[:40]}" for name in TOLD[:3])


def not_heeded() -> str | None:
    """Within `set_aside`: a line about what asks for something else than this training, and is not heeded."""
    if not _aside:
        return None
    ways = [each.startswith("ACCELERATE_") for each in _aside]
    several = [] if all(ways) else ["several processes start by accelerate launch"]
    other = ["--device, --dtype and --quant decide how it trains"] if any(ways) else []
    return f"{', '.join(_aside)} in the environment, from another job perhaps, is not heeded: {'; '.join(several + other)}"


@contextmanager
def set_aside() -> Iterator[None]:
    """Within: the environment holds nothing of a launch that has not started this process, and nothing that makes transformers or
    accelerate train in a way of their own."""
    found = launched()
    left_over = [] if found and found[1] > 1 else [*TOLD, "LOCAL_WORLD_SIZE", *_OF_MPI]
    accelerates = [name for name in os.environ if name.startswith("ACCELERATE_") and name != _KEPT]
    removed = {name: os.environ.pop(name) for name in (*left_over, *accelerates, *_UNASKED) if name in os.environ}
    asking = sorted(f"{name}={value[:40]}" for name, value in removed.items() if _asks(name, value))
    before, _aside[:] = list(_aside), [*_aside, *asking]
    try:
        yield
    finally:
        os.environ.update(removed)
        _aside[:] = before


def _asks(name: str, value: str) -> bool:
    """Whether it asks for something else than a training of one process, in irm-lite's own way."""
    if name in _ANOTHER_WAY:
        return value.lower() not in _NOTHING
    return (name.endswith("SIZE") and value not in ("", "1")) or (name.endswith("RANK") and value not in ("", "0", "-1"))


def _number(name: str) -> int | None:
    """A whole number of the environment, from 0; None where there is none."""
    value = os.environ.get(name, "")
    return int(value) if value.isascii() and value.isdecimal() and len(value) < 10 else None
