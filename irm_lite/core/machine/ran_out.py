"""Memory or threads that have run out: told apart from other errors, and said with the fix.

Libraries raise it in many types (MemoryError, RuntimeError, OSError, ImportError, a panic); the system's own errors are known by
their number, the others by what they say.
"""

import errno
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from irm_lite.core.errors import RanOut

Resource = Literal["memory", "threads"]

SMALLER = "take a smaller model, or end other programs"
SMALLER_OR_WHOLE = f"{SMALLER}; where much is free, the file may be damaged: download or convert it again"

_NUMBERS: dict[int, Resource] = {errno.ENOMEM: "memory", errno.EAGAIN: "threads"}
_NUMBERS_ON_WINDOWS: dict[int, Resource] = {8: "memory", 14: "memory", 1455: "memory", 164: "threads"}  # winerror.h
_WORDS: dict[Resource, tuple[str, ...]] = {
    "memory": (
        "out of memory",
        "allocate memory",  # ENOMEM, and torch's
        "not enough memory",
        "insufficient memory",
        "unable to allocate",
        "failed to allocate",
        "bad_alloc",
        "alloc_failed",  # cuBLAS
        "failed to map segment",  # of a library, where the address space is limited
        "cannot map zero-fill pages",
    ),
    "threads": ("can't start new thread", "resource temporarily unavailable"),  # EAGAIN, of a thread or a process
}
_NOT_MEMORY = "operation not permitted"  # a library on a file system that is mounted noexec
_THREADS = "raise the limit on processes (ulimit -u, or the container's) or on memory, or end other programs"


def what_ran_out(error: BaseException | str) -> Resource | None:
    """What an error, or a library's own words for it, says has run out."""
    if isinstance(error, MemoryError):
        return "memory"
    if isinstance(error, OSError) and error.errno is not None:  # not by its text: a path may say anything
        return _NUMBERS_ON_WINDOWS.get(getattr(error, "winerror", None) or 0) or _NUMBERS.get(error.errno)
    text = str(error).lower()
    return next((name for name, words in _WORDS.items() if any(each in text for each in words) and _NOT_MEMORY not in text), None)


def ran_out(resource: Resource, during: str = "", hint: str = SMALLER) -> RanOut:
    """The error that says so. `during`: as in "loading demo"; `hint`: what to do where it is memory."""
    where = f" ({during})" if during else ""
    if resource == "threads":
        return RanOut(f"no further thread or process can be started{where}", _THREADS)
    return RanOut(f"memory ran out{where}", hint)


@contextmanager
def told_as_ran_out(hint: str = SMALLER) -> Iterator[None]:
    """Within: an error by which memory or threads ran out is raised as RanOut, with this hint where it was memory."""
    try:
        yield
    except (RuntimeError, MemoryError, OSError) as error:
        if lacking := what_ran_out(error):
            raise ran_out(lacking, hint=hint) from error
        raise


def threads_are_left(count: int = 1) -> bool:
    """Whether the system lets this process start so many more."""
    end = threading.Event()
    started = []
    try:
        for _ in range(count):
            thread = threading.Thread(target=end.wait, daemon=True)
            thread.start()
            started.append(thread)
    except RuntimeError:
        return False
    finally:
        end.set()
        for thread in started:
            thread.join()
    return True
