"""Memory that has run out: told apart from other errors, named, and released."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from irm_lite.core.errors import TrainingFailed
from irm_lite.core.machine.ran_out import what_ran_out


def out_of_memory(error: RuntimeError | MemoryError) -> bool:
    """Whether torch or Python ran out of memory: known on a GPU by the error's type, elsewhere by its text."""
    return isinstance(error, torch.OutOfMemoryError) or what_ran_out(error) == "memory"


@contextmanager
def out_of_memory_as_failure(hint: str) -> Iterator[None]:
    """Turn running out of memory inside into TrainingFailed with this hint."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        raise TrainingFailed("memory ran out", hint) from error


def release_cached(device: str) -> None:
    """Give back the memory that torch keeps for later tensors, on a GPU."""
    if device == "cuda":
        torch.cuda.empty_cache()
    elif device == "mps":
        torch.mps.empty_cache()
