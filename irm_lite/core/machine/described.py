"""What a result's last digits depend on beside the libraries: system, processor, Python, threads."""

import platform
from pathlib import Path


def machine(threads: int) -> dict[str, str | int]:
    """This machine, without its name; `threads`: those that torch computes with."""
    return {
        "system": platform.system(),
        "processor": processor(),
        "python": platform.python_version(),
        "threads": threads,
    }


def processor() -> str:
    """Its model, where the system tells it, else its kind."""
    try:
        told = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        return next(line.partition(":")[2].strip() for line in told.splitlines() if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
