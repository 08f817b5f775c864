"""The peak of a process's memory, from one moment on: of the GPU with CUDA, else resident."""

import re
import resource
import sys
from pathlib import Path

import torch

_SELF = Path("/proc/self")


def peak(device: str) -> int:
    """Bytes at the peak since the last `clear`, or since the process began where it cannot be cleared."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    if (_SELF / "status").exists():
        found = re.search(r"^VmHWM:\s+(\d+) kB", (_SELF / "status").read_text(), re.MULTILINE)
        if found:
            return int(found[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def clear(device: str) -> bool:
    """Let the peak begin anew at what is held now; False where the system has no way to."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return True
    before = peak(device)
    try:
        (_SELF / "clear_refs").write_text("5")
    except OSError:
        return False
    return peak(device) <= before
