"""Lets torch's threads wait asleep while other processes want the cores; asked anew each second."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from irm_lite.core.machine.free_cores import FreeCores
from irm_lite.core.machine.sleep_sooner import SleepSooner

_EVERY = 1.0  # seconds
_watched = threading.Lock()  # held while a thread of this process watches: a training within an export needs no second one


@contextmanager
def giving_way() -> Iterator[None]:
    """Within, or in a function that it decorates. Afterwards threads wait as before."""
    import torch  # here, since a verb's module may be read for its help alone

    threads = torch.get_num_threads()
    if threads == 1 or not _watched.acquire(blocking=False):
        yield
        return
    sleep_sooner, cores, over = SleepSooner(threads), FreeCores(), threading.Event()

    def watch() -> None:
        while not over.wait(_EVERY):
            sleep_sooner.turn(cores.left() < min(cores.all, threads))

    watcher = threading.Thread(target=watch, name="giving way", daemon=True)
    try:
        with suppress(RuntimeError):  # the system has no thread left: this is advice
            watcher.start()
        yield
    finally:
        over.set()
        if watcher.ident is not None:
            watcher.join()
        sleep_sooner.turn(False)
        _watched.release()
