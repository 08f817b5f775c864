"""A switch that lets waiting threads sleep almost at once; they stay as many, since the bits of torch's sums depend on that."""

import ctypes
import threading
from contextlib import suppress
from pathlib import Path

from irm_lite.core.machine.ran_out import threads_are_left
from irm_lite.core.machine.spinning import waiting_is_said
from irm_lite.core.machine.usable_cores import allowed_cores


class SleepSooner:
    """On: they sleep after 100 turns.

    OpenMP's GNU runtime does so while it manages more threads than there are cores (gomp_throttled_spin_count_var in libgomp's
    env.c), so a team of threads that do nothing is kept meanwhile. Does nothing without that runtime, or where the user said how
    to wait.
    """

    def __init__(self, threads: int) -> None:
        """`threads`: of this process's teams, as torch's, which are to sleep."""
        # A team of n brings n - 1 new threads and the one that starts it: threads + n - 1 shall be one more than the cores, of
        # which the runtime counts those that it may run on.
        self._team = max(2, len(allowed_cores()) + 2 - threads) if threads > 1 else 0
        self._kept: list[tuple[threading.Thread, threading.Event]] = []

    def turn(self, on: bool) -> None:
        """Does nothing where the system has no thread left to give."""
        if on and not self._kept and self._team and not waiting_is_said():
            for path in _gnu_runtimes():
                if threads_are_left(self._team):  # where it is not, libgomp would end the process
                    self._keep_team(path)
        elif not on:
            for thread, end in self._kept:
                end.set()
                thread.join()  # the runtime ends a thread's team with it
            self._kept = []

    def _keep_team(self, runtime: str) -> None:
        """A thread that has had a team in this runtime and waits for its end; the team is there by the return."""
        begun, end = threading.Event(), threading.Event()

        def keep() -> None:
            try:
                with suppress(AttributeError, OSError):  # another runtime under the same name
                    library = ctypes.CDLL(runtime)
                    nothing = ctypes.cast(library.omp_get_thread_num, ctypes.c_void_p)
                    library.GOMP_parallel(nothing, None, self._team, 0)
            finally:
                begun.set()
            end.wait()

        thread = threading.Thread(target=keep, daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the last one went to somebody else since it was tried
            return
        self._kept.append((thread, end))
        begun.wait()


def _gnu_runtimes() -> list[str]:
    """The files of those that this process has loaded."""
    try:
        maps = Path("/proc/self/maps").read_text()
    except OSError:  # no Linux
        return []
    mapped = {fields[5] for line in maps.splitlines() if len(fields := line.split(maxsplit=5)) == 6}
    return sorted(path for path in mapped if Path(path).name.startswith("libgomp"))
