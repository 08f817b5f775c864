"""Memory that has run out: told apart from other errors, named, and released."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from irm_lite.core.errors import TrainingFailed


def out_of_memory(error: RuntimeError | MemoryError) -> bool:
    """Whether torch or Python ran out of memory: known on a GPU by the error's type, elsewhere by its text."""
    words = ("out of memory", "can't allocate memory", "not enough memory", "bad_alloc")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(each in str(error) for each in words)


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
