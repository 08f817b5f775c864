"""How many of the cores that this process may use other processes leave to it, measured over the time since it was last asked."""

import os
import time
from typing import Any

import psutil

_SPAN = 0.5  # seconds; the system counts in hundredths, over less the share of a core is not to be told


class FreeCores:
    """Looks at the system's counts of busy time, its own threads' left out. Where they cannot be read, every core is free."""

    def __init__(self) -> None:
        self.all = usable_cores()
        self._left = self.all
        self._looked = time.monotonic()
        self._others = _others_seconds()

    def left(self) -> int:
        """Of `all`; anew at most twice a second, so that it may be asked at every token."""
        now = time.monotonic()
        passed = now - self._looked
        if passed >= _SPAN:
            others = _others_seconds()
            taken = (others - self._others) / passed
            self._left = min(self.all, max(0, round(self.all - taken)))
            self._looked, self._others = now, others
        return self._left


def usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _others_seconds() -> float:
    """Busy core seconds so far of all but this process on the cores that it may use, those that the host of a virtual machine
    took away (steal) among them."""
    try:
        cores = psutil.cpu_times(percpu=True)
    except OSError:  # a sandbox without /proc/stat
        return 0.0
    mine = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(len(cores))
    busy = sum(_busy(cores[core]) for core in mine if core < len(cores))
    return busy - time.process_time()


def _busy(times: Any) -> float:
    waiting = times.idle + getattr(times, "iowait", 0.0)
    counted_twice = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)  # they are in user and nice, too
    return float(sum(times) - waiting - counted_twice)
