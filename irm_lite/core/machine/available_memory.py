"""Memory that may still be taken: of the system's, and within a container's limit, of which the system's counts know nothing."""

from pathlib import Path
from typing import NamedTuple

import psutil

_GROUPS = Path("/sys/fs/cgroup")  # a container sees its own group here


class _Files(NamedTuple):
    """Where a version of Linux's control groups writes them, in bytes; `reclaimed`: the line of memory.stat that counts what is
    kept of files, and given back when it is asked for."""

    limit: str
    used: str
    stat: str
    reclaimed: str


_VERSIONS = (
    _Files("memory.max", "memory.current", "memory.stat", "inactive_file"),
    _Files("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat", "total_inactive_file"),
)


def available_bytes() -> int:
    available, left = int(psutil.virtual_memory().available), left_by_limit()
    return available if left is None else min(available, left)


def left_by_limit(groups: Path = _GROUPS) -> int | None:
    """Bytes; None without a limit, or where nothing is told."""
    for files in _VERSIONS:
        try:
            limit, used = (int((groups / name).read_text()) for name in (files.limit, files.used))
            counts = dict(line.split() for line in (groups / files.stat).read_text().splitlines())
            return max(0, limit - used + int(counts.get(files.reclaimed, 0)))
        except (OSError, ValueError):  # no such files; "max"
            continue
    return None
