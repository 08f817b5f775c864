"""The peak of memory, held against buffers of a known size and against the other ways a system has to tell."""

import resource
import subprocess
import sys

import pytest
import torch
from bitsandbytes.functional import GlobalPageManager

from irm_lite.core.machine.memory import _since_start, held_bytes, peak_bytes, reset_peak

_FIRST, _SECOND = 200 << 20, 50 << 20  # bytes
_PROGRAM = f"""
from irm_lite.core.machine.memory import peak_bytes, reset_peak
start = peak_bytes("cpu")
large = bytearray(b"x") * {_FIRST}
del large
first = peak_bytes("cpu")
reset_peak("cpu")
cleared = peak_bytes("cpu")
small = bytearray(b"x") * {_SECOND}
print(first - start, cleared - start, peak_bytes("cpu") - cleared)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux clears the peak")
def test_the_peak_outlives_the_buffer_and_is_cleared() -> None:
    done = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=True)
    first, cleared, second = map(int, done.stdout.split())
    slack = 4 << 20  # what Python itself takes meanwhile
    assert _FIRST <= first + slack <= _FIRST + 2 * slack
    assert abs(cleared) <= slack
    assert _SECOND <= second + slack <= _SECOND + 2 * slack


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no resource module")
def test_other_systems_count_bytes_since_the_start() -> None:
    reset_peak("cpu")
    unit = 1 if sys.platform == "darwin" else 1024
    assert _since_start() == pytest.approx(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit, rel=0.01)
    assert _since_start() >= 0.95 * peak_bytes("cpu")  # one counts from the start, the other from the reset


def test_each_gpu_is_asked_in_its_own_way(monkeypatch: pytest.MonkeyPatch) -> None:
    reset: list[int] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", {0: 5, 1: 60}.get)
    monkeypatch.setattr(torch.cuda, "memory_allocated", {0: 3, 1: 40}.get)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", reset.append)
    monkeypatch.setattr(torch.mps, "driver_allocated_memory", lambda: 7)
    monkeypatch.setattr(GlobalPageManager.get_instance(), "paged_tensors", [torch.zeros(25)])  # 100 bytes that torch does not count
    assert (peak_bytes("cuda"), peak_bytes("mps")) == (165, 7)
    assert (held_bytes("cuda"), held_bytes("mps")) == (143, 7)
    assert not reset_peak("mps")
    assert reset_peak("cuda")
    assert reset == [0, 1]
