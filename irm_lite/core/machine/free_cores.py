"""How many of the cores that this process may use other processes leave to it, measured over the time since it was last asked."""

import os
import time
from typing import Any

import psutil

_SPAN = 0.5  # seconds; the system counts in hundredths of one, and a shorter span cannot tell a core's share
_IDLE = 0.02  # of a core: a span in which this process did no more than that tells nothing of its next work


class FreeCores:
    """Looks at the system's counts of busy time, its own threads' left out; other processes of the same program are others.

    Where the counts cannot be read, every core is free."""

    def __init__(self) -> None:
        self.all = usable_cores()
        self._left = self.all
        self._looked, self._own, self._others = _counts()

    def left(self) -> int:
        """Of `all`, over the span since it was last asked; anew at most twice a second, so that it may be asked at every token."""
        if time.monotonic() - self._looked >= _SPAN:
            looked, own, others = _counts()
            span = looked - self._looked
            if own - self._own > _IDLE * span:
                self._left = min(self.all, max(0, round(self.all - (others - self._others) / span)))
            self._looked, self._own, self._others = looked, own, others
        return self._left


def usable_cores() -> int:
    return len(_usable())


def _usable() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _counts() -> tuple[float, float, float]:
    """Now, and busy core seconds so far: this process's, and those of all others on the cores that it may use, with what the
    host of a virtual machine took away (steal)."""
    own = time.process_time()
    try:
        cores = psutil.cpu_times(percpu=True)
    except OSError:  # a sandbox without /proc/stat
        return time.monotonic(), own, 0.0
    return time.monotonic(), own, sum(_busy(cores[core]) for core in _usable() if core < len(cores)) - own


def _busy(times: Any) -> float:
    waiting = times.idle + getattr(times, "iowait", 0.0)
    counted_twice = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)  # they are in user and nice, too
    return float(sum(times) - waiting - counted_twice)
