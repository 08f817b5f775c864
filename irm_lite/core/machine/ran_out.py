"""Memory or threads that have run out: told apart from other errors, and said with the fix.

Libraries raise it in many types (MemoryError, RuntimeError, OSError, ImportError, a panic); what they have in common is the text.
"""

import threading
from typing import Literal

from irm_lite.core.errors import RanOut

Resource = Literal["memory", "threads"]

_WORDS: dict[Resource, tuple[str, ...]] = {
    "memory": (
        "out of memory",
        "allocate memory",  # ENOMEM, and torch's
        "not enough memory",
        "insufficient memory",
        "unable to allocate",
        "failed to allocate",
        "bad_alloc",
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
    text = str(error).lower()
    return next((name for name, words in _WORDS.items() if any(each in text for each in words) and _NOT_MEMORY not in text), None)


def ran_out(resource: Resource, during: str = "", hint: str = "take a smaller model, or end other programs") -> RanOut:
    """The error that says so. `during`: as in "loading demo"; `hint`: what to do where it is memory."""
    where = f" ({during})" if during else ""
    if resource == "threads":
        return RanOut(f"no further thread or process can be started{where}", _THREADS)
    return RanOut(f"memory ran out{where}", hint)


def threads_are_left() -> bool:
    """Whether the system starts another thread."""
    thread = threading.Thread(target=bool)
    try:
        thread.start()
    except RuntimeError:
        return False
    thread.join()
    return True
