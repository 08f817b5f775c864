"""Tells glibc when to return freed memory to the system: at once after a load, only at the end of a training."""

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3  # <malloc.h>
_WHILE_LOADING = 512 << 10  # bytes; larger buffers are mapped, so they go back to the system when they are freed
_MOST = 32 << 20  # bytes; where glibc's own threshold ends up once such buffers were freed (mallopt(3))


@contextmanager
def freed_memory_returned() -> Iterator[None]:
    """Memory freed inside goes back to the system at once. Does nothing without glibc.

    glibc keeps freed buffers of up to 32 MB, and quantised weights allocated in between pin them: loading the demo model in NF4,
    105 MB, left 340 MB resident, with this 100 MB (docs/log.md).
    """
    if platform.libc_ver()[0] != "glibc":
        yield
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(_M_MMAP_THRESHOLD, _WHILE_LOADING)
    try:
        yield
    finally:
        libc.mallopt(_M_MMAP_THRESHOLD, _MOST)
        libc.mallopt(_M_TRIM_THRESHOLD, 2 * _MOST)
        libc.malloc_trim(0)


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Memory freed inside stays with the process until the end: the next step needs buffers of the same sizes.

    Otherwise the system clears the same pages again for every step: a tenth of a training's time on a CPU (docs/log.md).
    """
    if platform.libc_ver()[0] != "glibc":
        yield
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
    libc.mallopt(_M_TOP_PAD, 4 * _MOST)
    try:
        yield
    finally:
        libc.mallopt(_M_TRIM_THRESHOLD, 2 * _MOST)
        libc.mallopt(_M_TOP_PAD, 0)
        libc.malloc_trim(0)


def give_back() -> None:
    """Give the system what is free in the heap now. Does nothing without glibc."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)
