"""Lets a training's threads wait asleep while other processes want the cores; asked anew at each step."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import TrainerCallback

from irm_lite.core.machine.free_cores import FreeCores
from irm_lite.core.machine.sleep_sooner import SleepSooner


class _GiveWay(TrainerCallback):  # type: ignore[misc]
    def __init__(self, sleep_sooner: SleepSooner, threads: int) -> None:
        self._sleep_sooner, self._threads, self._cores = sleep_sooner, threads, FreeCores()

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self._sleep_sooner.turn(self._cores.left() < min(self._cores.all, self._threads))


@contextmanager
def giving_way() -> Iterator[TrainerCallback]:
    """The callback; afterwards threads wait as before."""
    threads = torch.get_num_threads()
    sleep_sooner = SleepSooner(threads)
    try:
        yield _GiveWay(sleep_sooner, threads)
    finally:
        sleep_sooner.turn(False)
