"""What threads that wait take of the processor, switch on and off, in OpenMP's own runtime."""

import os
import subprocess
import sys

import pytest

from irm_lite.core.machine.usable_cores import usable_cores

_UNEVEN_WORK = """
import ctypes, sys, time
from irm_lite.core.machine.sleep_sooner import SleepSooner, _gnu_runtimes
from irm_lite.core.machine.spinning import spin_briefly
spin_briefly()
import hashlib, torch
library = ctypes.CDLL(_gnu_runtimes()[0])
text = bytes(200_000)

@ctypes.CFUNCTYPE(None, ctypes.c_void_p)
def work(_):
    if library.omp_get_thread_num() == 0:
        hashlib.sha256(text)  # lets the other thread run

def waited(times):
    "Processor's seconds of the team's second thread, which has nothing to do, to those of the first."
    whole, own = time.process_time(), time.thread_time()
    for _ in range(times):
        library.GOMP_parallel(work, None, 2, 0)
    own = time.thread_time() - own
    return (time.process_time() - whole - own) / own

switch = SleepSooner(2)
waited(100)
for _ in range(5):
    for on in (False, True, False):
        switch.turn(on)
        print(waited(1000))
"""


@pytest.mark.skipif(sys.platform != "linux" or usable_cores() < 2, reason="the GNU runtime, which gives way by itself on one core")
@pytest.mark.parametrize("said", [{}, {"GOMP_SPINCOUNT": "77777"}])
def test_threads_that_wait_take_less_while_they_are_to_sleep_sooner(said: dict[str, str]) -> None:
    unsaid = {name: value for name, value in os.environ.items() if not name.startswith(("GOMP", "OMP"))}
    done = subprocess.run([sys.executable, "-c", _UNEVEN_WORK], env={**unsaid, **said}, capture_output=True, text=True, check=True)
    told = list(map(float, done.stdout.split()))
    tries = [told[at : at + 3] for at in range(0, len(told), 3)]
    lower = [sooner < min(before, after) / 2 for before, sooner, after in tries]
    # Whoever else has the cores may blur some of them; what the user says stays.
    assert sum(lower) < 3 if said else sum(lower) >= 3


_FEW_TASKS = """
import os, resource, sys
from irm_lite.core.machine.sleep_sooner import SleepSooner
import torch
if os.getuid() == 0:
    os.setuid(54321)  # the limit does not hold for root
resource.setrlimit(resource.RLIMIT_NPROC, (int(sys.argv[1]), int(sys.argv[1])))
switch = SleepSooner(2)
switch.turn(True)
switch.turn(False)
print("goes on")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="its limit, and the GNU runtime")
@pytest.mark.parametrize("tasks", [1, 2, 3, 4])
def test_a_system_without_a_thread_to_give_ends_nothing(tasks: int) -> None:
    unsaid = {name: value for name, value in os.environ.items() if not name.startswith(("GOMP", "OMP"))}
    done = subprocess.run([sys.executable, "-c", _FEW_TASKS, str(tasks)], env=unsaid, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "goes on\n", "")
