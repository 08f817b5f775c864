"""The cores that this process may use: those that it may run on, within a container's limit on processor time.

Of that limit the system's count knows nothing. With 4 of a host's 64 cores (`docker run --cpus 4`) the system shows 64, and as
many threads share the time of 4: all of them stop together once a period's time is used up.
"""

import math
import os
from pathlib import Path

_GROUPS = Path("/sys/fs/cgroup")  # a container sees its own group here
_VERSIONS = (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"))  # microseconds, and of how many
_THREADS = "OMP_NUM_THREADS"


def usable_cores() -> int:
    """Of those that this process may run on, as many as it is given time of."""
    allowed = len(allowed_cores())
    return min(allowed, cores_of_quota() or allowed)


def allowed_cores() -> tuple[int, ...]:
    """The numbers of those that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


def cores_of_quota(groups: Path = _GROUPS) -> int | None:
    """How many cores' time this process may have, rounded up; None without a limit, or where nothing is told."""
    for names in _VERSIONS:
        try:
            quota, period = map(int, " ".join((groups / name).read_text() for name in names).split())
        except (OSError, ValueError):  # no such files; "max"
            continue
        if quota > 0 and period > 0:  # version 1 writes -1 where there is none
            return math.ceil(quota / period)
    return None


def threads_within_quota() -> None:
    """Call it before the first import of torch, whose runtime reads its environment once. What the user says stays."""
    if _THREADS not in os.environ and usable_cores() < len(allowed_cores()):
        os.environ[_THREADS] = str(usable_cores())
