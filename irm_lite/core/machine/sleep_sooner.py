"""A switch that lets waiting threads sleep almost at once; they stay as many, since the bits of torch's sums depend on that."""

import ctypes
import threading
from contextlib import suppress
from pathlib import Path

from irm_lite.core.machine.free_cores import usable_cores
from irm_lite.core.machine.spinning import waiting_is_said


class SleepSooner:
    """On: they sleep after 100 turns.

    OpenMP's GNU runtime does so while it manages more threads than there are cores (gomp_throttled_spin_count_var in libgomp's
    env.c), so a team of threads that do nothing is kept meanwhile. Does nothing without that runtime, or where the user said how
    to wait.
    """

    def __init__(self) -> None:
        self._kept: list[tuple[threading.Thread, threading.Event]] = []

    def turn(self, on: bool) -> None:
        """Returns once it acts."""
        if on and not self._kept and not waiting_is_said():
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
