"""The processes that train one IRM together, as `accelerate launch` or torchrun starts them.

Each computes its share of a step's samples; only process 0 writes files and prints. With a single process all of this does nothing.
"""

import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from irm_lite.core.errors import EXIT_FAILED, FailedElsewhere, InputError, IrmLiteError, TrainingFailed, reason
from irm_lite.core.machine.launch import TOLD, launched, shown

if TYPE_CHECKING:
    from torch import Tensor

Item = TypeVar("Item")
SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
_PATIENCE = 20.0  # seconds
_LINE_BYTES = 1000  # of an error's message, as it is sent to the others


def count() -> int:
    """The number of processes, known from the environment."""
    found = launched()
    return found[1] if found else 1


def number() -> int:
    """The number (rank) of this process, from 0."""
    found = launched()
    return found[0] if found else 0


def first() -> bool:
    """Whether this is process 0, which writes files and prints."""
    return number() == 0


def on_this_machine() -> int:
    """How many processes share this machine's memory and disk."""
    told = os.environ.get("LOCAL_WORLD_SIZE", "1") if count() > 1 else "1"
    return int(told) if told.isdecimal() else 1


def meet(device: str) -> None:
    """Wait for all processes; on CUDA each takes a GPU of its own, its "cuda" from then on.

    Raises InputError on other devices, where there are fewer GPUs than processes, and where the others cannot be reached.
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
    with _told_of_waiting():
        try:
            PartialState(cpu=device == "cpu")
        except (RuntimeError, ValueError) as error:
            raise InputError(f"the other processes of this training cannot be reached ({reason(error)}): {_left_over()}") from error


def _left_over() -> str:
    return f"the environment has {shown()}: start all by accelerate launch, or, to train in one, unset {', '.join(TOLD)}"


@contextmanager
def _told_of_waiting() -> Iterator[None]:
    """Within: who waits long is told for what, by each process, since only the first one speaks otherwise; and a signal ends the
    process, which torch, waiting, would not let Python hear of (nothing is written yet)."""

    def tell() -> None:
        if sys.__stderr__ is not None:
            sys.__stderr__.write(f"irm-lite: warning: waiting for the other processes of this training; {_left_over()}\n")

    timer = threading.Timer(_PATIENCE, tell)
    timer.daemon = True
    timer.start()
    before = {}
    if threading.current_thread() is threading.main_thread():
        heeded = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
        before = {number: signal.signal(number, signal.SIG_DFL) for number in heeded}
    try:
        yield
    finally:
        timer.cancel()
        for number, handler in before.items():
            signal.signal(number, handler)


def share(items: Sequence[Item]) -> list[Item]:
    """This process's consecutive part of the items; empty where there are too few."""
    size = -(-len(items) // count())
    return list(items[number() * size : (number() + 1) * size])


def add_up(tensor: "Tensor") -> "Tensor":
    """The sum over all processes, in place and the same to the last bit in each. Raises TrainingFailed where one has ended;
    with NCCL its watchdog ends all of them after some minutes."""
    if count() == 1:
        return tensor
    from torch import distributed

    try:
        distributed.all_reduce(tensor)
    except RuntimeError as error:
        raise TrainingFailed("another process of this training has ended", "continue with irm-lite train --resume") from error
    return tensor


def sum_of(value: float) -> float:
    """The sum of a number over all processes."""
    return float(add_up(_tensor([value]))) if count() > 1 else value


@contextmanager
def agreed() -> Iterator[None]:
    """Around work after which either all processes continue or none: one that fails raises its own error, the others raise
    FailedElsewhere with the same message. Nothing inside may wait for another process."""
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
    """The exit code and message of the first process that failed, sent to all."""
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
    """A tensor on the device that the processes communicate through: the GPU with NCCL, else the CPU."""
    import torch

    device = "cuda" if torch.distributed.get_backend() == "nccl" else "cpu"
    return torch.tensor(values, dtype=torch.float64, device=device)
