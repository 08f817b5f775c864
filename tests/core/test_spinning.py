"""How long threads spin, as OpenMP's runtime itself tells it."""

import os
import re
import subprocess
import sys

import pytest

from irm_lite.core.machine.spinning import TRAINING, WRITING

_VERB_THEN_TORCH = "import sys; from irm_lite.cli.main import run; run(sys.argv[1:]); import torch"


@pytest.mark.skipif(sys.platform != "linux", reason="torch brings the GNU runtime on Linux alone")
@pytest.mark.parametrize(
    ("verb", "said", "turns"),
    [
        ("models list", {}, TRAINING),
        ("generate --help", {}, WRITING),
        ("generate --help", {"GOMP_SPINCOUNT": str(TRAINING)}, WRITING),  # as the UI's child inherits it
        ("models list", {"GOMP_SPINCOUNT": "77"}, 77),
        ("models list", {"OMP_WAIT_POLICY": "passive"}, 0),
    ],
)
def test_a_verbs_threads_spin_briefly_unless_the_user_says_otherwise(verb: str, said: dict[str, str], turns: int) -> None:
    unsaid = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    done = subprocess.run(
        [sys.executable, "-c", _VERB_THEN_TORCH, *verb.split()],
        env={**unsaid, **said, "OMP_DISPLAY_ENV": "verbose"},
        capture_output=True,
        text=True,
        check=True,
    )
    told = re.search(r"GOMP_SPINCOUNT = '(\d+)'", done.stderr)
    assert told is not None
    assert int(told[1]) == turns


_UNEVEN_WORK = """
import ctypes, sys, time
from irm_lite.core.machine.spinning import SleepSooner, spin_briefly
spin_briefly()
import hashlib, torch
from irm_lite.core.machine.spinning import _gnu_runtimes
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

switch = SleepSooner()
waited(100)
for on in (False, True, False):
    switch.turn(on)
    print(waited(1000))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the GNU runtime")
@pytest.mark.parametrize("said", [{}, {"GOMP_SPINCOUNT": "77777"}])
def test_threads_that_wait_take_less_while_they_are_to_sleep_sooner(said: dict[str, str]) -> None:
    unsaid = {name: value for name, value in os.environ.items() if not name.startswith(("GOMP", "OMP"))}
    done = subprocess.run([sys.executable, "-c", _UNEVEN_WORK], env={**unsaid, **said}, capture_output=True, text=True, check=True)
    before, sooner, after = map(float, done.stdout.split())
    if said:  # what the user says stays
        assert sooner > min(before, after) / 2
    else:
        assert sooner < min(before, after) / 2
