"""Memory: in use, at its peak, free; and sizes as users write them."""

import sys
from contextlib import suppress
from pathlib import Path

import psutil

from irm_lite.core.errors import InputError
from irm_lite.core.machine.available_memory import available_bytes


def peak_bytes(device: str) -> int:
    """Bytes. CUDA: the most that tensors held, on all GPUs, and what bitsandbytes pages. MPS: what Metal holds for this
    process now, since it keeps no peak.

    CPU: the process's resident memory at its peak; Linux counts from the last `reset_peak`, other systems from the
    process's start.
    """
    if device == "cuda":
        import torch

        return sum(map(torch.cuda.max_memory_allocated, range(torch.cuda.device_count()))) + _paged_bytes()
    if device == "mps":
        return held_bytes(device)
    if (status := Path("/proc/self/status")).exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    return _since_start()


def reset_peak(device: str) -> bool:
    """Start the peak afresh; False where the system cannot (it can on CUDA, and on Linux for resident memory)."""
    if device == "cuda":
        import torch

        for number in range(torch.cuda.device_count()):
            torch.cuda.reset_peak_memory_stats(number)
        return True
    if device == "cpu" and (clear := Path("/proc/self/clear_refs")).exists():
        with suppress(OSError):  # a sandbox may forbid it: then the peak counts from the process's start
            clear.write_text("5")  # proc(5): the peak becomes what is resident now
            return True
    return False


def held_bytes(device: str) -> int:
    """Bytes in use now, as `peak_bytes` counts them."""
    if device == "cuda":
        import torch

        return sum(map(torch.cuda.memory_allocated, range(torch.cuda.device_count()))) + _paged_bytes()
    if device == "mps":
        import torch

        return torch.mps.driver_allocated_memory()
    return int(psutil.Process().memory_info().rss)


def _paged_bytes() -> int:
    """Bytes of optimiser states that CUDA pages between GPU and host; torch's allocator does not count them."""
    from bitsandbytes.functional import GlobalPageManager

    return sum(tensor.nbytes for tensor in GlobalPageManager.get_instance().paged_tensors)


def _since_start() -> int:
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource

    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else largest * 1024  # bytes on macOS, kB elsewhere


def free_bytes(device: str) -> int:
    """Bytes. CUDA: of the GPU, within the share that torch was given. MPS: what Metal recommends. CPU: what this process
    has, and may have on top."""
    if device == "cuda":
        import torch

        free, total = torch.cuda.mem_get_info()
        share = int(total * torch.cuda.get_per_process_memory_fraction())
        return min(free + torch.cuda.memory_reserved(), share)
    if device == "mps":
        import torch

        return torch.mps.recommended_max_memory()
    return available_bytes() + int(psutil.Process().memory_info().rss)


def release_cached(device: str) -> None:
    """Give back the memory that torch keeps for later tensors, on a GPU."""
    if device == "cuda":
        import torch

        torch.cuda.empty_cache()
    elif device == "mps":
        import torch

        torch.mps.empty_cache()


_UNITS = {"GiB": 2**30, "MiB": 2**20, "GB": 10**9, "MB": 10**6}


def parse_size(text: str) -> int:
    """'8GB' (10^9) or '8GiB' (2^30) -> bytes. Raises InputError."""
    for unit, factor in _UNITS.items():
        number = text.removesuffix(unit)
        if number != text and number.replace(".", "", 1).isdecimal() and 0 < float(number) < 1e12:
            return int(float(number) * factor)
    raise InputError(f"{text!r} is not a size of memory", "give a number and a unit, such as 8GB or 8GiB")
