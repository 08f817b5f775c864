"""How long a waiting thread spins before it sleeps, in OpenMP's GNU runtime, which torch and llama.cpp use on Linux.

Its own default is some 300,000 turns, 12 ms: beside one busy process, or two threads on a core, a waiting thread takes the core
from the one that it waits for, many times a token. How few turns lose nothing alone depends on how often threads wait: a training
seldom, llama.cpp some 400 times a token (figures in docs/log.md). torch and llama.cpp share the runtime that is loaded first, so a
process has one number. A training's threads sleep sooner while others want the cores (SleepSooner), and stay as many, since the
bits of a sum depend on how many they are; llama.cpp's, whose bits do not, become fewer (llamacpp/threads.py).
"""

import ctypes
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from irm_lite.core.machine.free_cores import usable_cores

_SPIN = "GOMP_SPINCOUNT"
TRAINING, WRITING = 20_000, 2_000  # 0.8 and 0.08 ms
_WRITERS = ("generate", "serve")  # the verbs that do nothing but run llama.cpp


def spin_briefly(verb: str = "") -> None:
    """Call it before the first import of torch or llama.cpp: the runtime reads its environment once. What the user says stays."""
    if not _said():
        os.environ[_SPIN] = str(WRITING if verb in _WRITERS else TRAINING)


@contextmanager
def brief_spins() -> Iterator[None]:
    """Within: llama.cpp, as it is loaded, is told so where nothing else is said. Afterwards the environment is as it was: the
    program around us may be someone else's."""
    if _SPIN in os.environ or _said():
        yield
        return
    os.environ[_SPIN] = str(WRITING)
    try:
        yield
    finally:
        del os.environ[_SPIN]


class SleepSooner:
    """A switch that lets waiting threads sleep after 100 turns, without another number of threads.

    The runtime does so while it manages more threads than there are cores (gomp_throttled_spin_count_var in libgomp's env.c), so a
    team of threads that do nothing is kept meanwhile. Does nothing without that runtime, or where the user said how to wait.
    """

    def __init__(self) -> None:
        self._kept: list[tuple[threading.Thread, threading.Event]] = []

    def turn(self, on: bool) -> None:
        """Returns once it acts."""
        if on and not self._kept and not _said():
            self._kept = [_idle_team(path) for path in _gnu_runtimes()]
        elif not on:
            for thread, end in self._kept:
                end.set()
                thread.join()  # the runtime ends a thread's team with it
            self._kept = []


def _idle_team(runtime: str) -> tuple[threading.Thread, threading.Event]:
    """A thread that has had a team in this runtime and waits for its end; the team is there by now."""
    begun, end = threading.Event(), threading.Event()

    def keep() -> None:
        with suppress(AttributeError, OSError):  # another runtime under the same name
            library = ctypes.CDLL(runtime)
            nothing = ctypes.cast(library.omp_get_thread_num, ctypes.c_void_p)
            library.GOMP_parallel(nothing, None, usable_cores() + 1, 0)
        begun.set()
        end.wait()

    thread = threading.Thread(target=keep, daemon=True)
    thread.start()
    begun.wait()
    return thread, end


def _gnu_runtimes() -> list[str]:
    """The files of those that this process has loaded."""
    try:
        maps = Path("/proc/self/maps").read_text()
    except OSError:  # no Linux
        return []
    mapped = {fields[5] for line in maps.splitlines() if len(fields := line.split(maxsplit=5)) == 6}
    return sorted(path for path in mapped if Path(path).name.startswith("libgomp"))


def _said() -> bool:
    """Whether the user has; a process of ours may have been started by another, whose number is inherited."""
    return "OMP_WAIT_POLICY" in os.environ or os.environ.get(_SPIN) not in (None, str(TRAINING), str(WRITING))
