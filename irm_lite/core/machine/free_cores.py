"""How many of the cores that this process may use other processes leave to it, measured over the time since it was last asked."""

import time
from typing import Any, NamedTuple

import psutil

from irm_lite.core.machine.usable_cores import allowed_cores, usable_cores

_SPAN = 0.5  # seconds; the system counts in hundredths of one, and a shorter span cannot tell a core's share
_IDLE = 0.02  # of a core: a span in which this process did no more than that tells nothing of its next work


class FreeCores:
    """Looks at the system's counts of busy time, its own threads' left out; other processes of the same program are others.

    Where the counts cannot be read, every core is free."""

    def __init__(self) -> None:
        self.all = usable_cores()
        self._left = self.all
        self._seen = _counts()

    def left(self) -> int:
        """Of `all`, over the span since it was last asked; anew at most twice a second, so that it may be asked at every token."""
        if time.monotonic() - self._seen.at >= _SPAN:
            before, self._seen = self._seen, _counts()
            span = self._seen.at - before.at
            told = self._seen.cores is not None and self._seen.cores == before.cores
            if told and self._seen.own - before.own > _IDLE * span:
                free = len(self._seen.cores or ()) - (self._seen.others - before.others) / span
                self._left = min(self.all, max(0, round(free)))
        return self._left


class _Counts(NamedTuple):
    """Core seconds so far: `own`, of this process, and `others`, of all else that kept these cores busy, with what
    the host of a virtual machine took away (steal)."""

    at: float
    own: float
    others: float
    cores: tuple[int, ...] | None  # those that this process may run on; None where nothing is told


def _counts() -> _Counts:
    own, cores = time.process_time(), allowed_cores()
    try:
        told = psutil.cpu_times(percpu=True)
        others = sum(_busy(told[core]) for core in cores) - own  # where a core is switched off, their numbers are not places here
    except Exception:  # a sandbox may hide /proc/stat or write its own; this is advice, and nothing may end for want of it
        return _Counts(time.monotonic(), own, 0.0, None)
    return _Counts(time.monotonic(), own, others, cores)


def _busy(times: Any) -> float:
    waiting = times.idle + getattr(times, "iowait", 0.0)
    counted_twice = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)  # they are in user and nice, too
    return float(sum(times) - waiting - counted_twice)
