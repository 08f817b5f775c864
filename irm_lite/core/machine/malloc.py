"""Tells glibc when to give buffers back to the system: after a load at once, in a training only at its end."""

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3  # <malloc.h>
_WHILE_LOADING = 512 << 10  # bytes; larger buffers are mapped, so they go back to the system when they are freed
_MOST = 32 << 20  # bytes; where glibc's own threshold ends up once such buffers were freed (mallopt(3))


@contextmanager
def given_back() -> Iterator[None]:
    """Nothing that is freed inside stays with the process; elsewhere than with glibc this does nothing.

    glibc keeps freed buffers of up to 32 MB, and what is quantised in between pins them: the demo model in NF4, 105 MB,
    left 340 MB resident and now leaves 100 MB (docs/log.md).
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
def kept() -> Iterator[None]:
    """What is freed inside stays with the process until the end, for the next step's buffers are of the same sizes.

    Else the system clears the same pages for each step anew: a tenth of a training's time on a CPU (docs/log.md).
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
