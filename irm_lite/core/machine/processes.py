"""The processes that train one IRM together, as `accelerate launch` or torchrun starts them.

Each goes through its share of a step's samples; process 0 alone writes and speaks. One process alone needs nothing of this.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from irm_lite.core.errors import EXIT_FAILED, FailedElsewhere, InputError, IrmLiteError, TrainingFailed

if TYPE_CHECKING:
    from torch import Tensor

Item = TypeVar("Item")
_LINE_BYTES = 1000  # of an error, as the others are told it


def count() -> int:
    """How many there are; known from the start."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "LOCAL_RANK" in os.environ else 1


def number() -> int:
    """Which of them this one is, from 0."""
    return int(os.environ["RANK"]) if count() > 1 else 0


def first() -> bool:
    """Whether this is the one that writes and speaks."""
    return number() == 0


def on_this_machine() -> int:
    """How many share this machine's memory and disk."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if count() > 1 else 1


def meet(device: str) -> None:
    """Wait for all processes; on CUDA each takes a GPU of its own, which is "cuda" to it from then on.

    Raises InputError where that cannot be.
    """
    if count() == 1:
        return
    import torch
    from accelerate import PartialState

    if device not in ("cuda", "cpu"):
        raise InputError(f"several processes cannot train on {device}", "start one, or say --device cpu")
    if device == "cuda" and on_this_machine() > torch.cuda.device_count():
        gpus = torch.cuda.device_count()
        raise InputError(f"{on_this_machine()} processes for {gpus} GPUs", f"start {gpus}, with --num_processes")
    PartialState(cpu=device == "cpu")


def share(items: Sequence[Item]) -> list[Item]:
    """This process's part of what all have: consecutive, none where there are too few."""
    size = -(-len(items) // count())
    return list(items[number() * size : (number() + 1) * size])


def add_up(tensor: "Tensor") -> "Tensor":
    """The sum over all processes, in place and the same to the last bit in each. Raises TrainingFailed where one is gone;
    with NCCL the system's watchdog ends all after some minutes."""
    if count() == 1:
        return tensor
    from torch import distributed

    try:
        distributed.all_reduce(tensor)
    except RuntimeError as error:
        raise TrainingFailed("another process of this training has ended", "go on with irm-lite train --resume") from error
    return tensor


def sum_of(value: float) -> float:
    """The sum of a number over all processes."""
    return float(add_up(_tensor([value]))) if count() > 1 else value


@contextmanager
def agreed() -> Iterator[None]:
    """Around work after which all processes go on, or none: where one fails, it raises its error and the others
    FailedElsewhere with the same line. Nothing within may wait for another process."""
    failure: Exception | None = None
    try:
        yield
    except Exception as error:
        if count() == 1:
            raise
        failure = error
    try:
        told = _tell(failure) if sum_of(failure is not None) else None
    except TrainingFailed as gone:
        raise failure or gone from None
    if told:
        raise failure or told


def _tell(failure: Exception | None) -> FailedElsewhere:
    """What the first process that has failed says: its exit code, and its line."""
    told = bytearray(_LINE_BYTES)
    if failure is not None:
        known = isinstance(failure, IrmLiteError)
        line = str(failure) if known else f"process {number()}: {type(failure).__name__}: {failure}"
        text = bytes([failure.exit_code if isinstance(failure, IrmLiteError) else EXIT_FAILED]) + line.encode()
        told[: len(text)] = text[:_LINE_BYTES]
    all_told = _tensor([0] * count() * _LINE_BYTES).view(count(), _LINE_BYTES)
    all_told[number()] = _tensor(list(told))
    code, *line_bytes = next(row for row in add_up(all_told).int().tolist() if row[0])
    return FailedElsewhere(bytes(line_bytes).rstrip(b"\0").decode(errors="ignore"), code)


def _tensor(values: Sequence[float]) -> "Tensor":
    """Where the processes' messages go by: in the GPU's memory, or the machine's."""
    import torch

    device = "cuda" if torch.distributed.get_backend() == "nccl" else "cpu"
    return torch.tensor(values, dtype=torch.float64, device=device)
