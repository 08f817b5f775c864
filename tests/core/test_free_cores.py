"""Cores that others leave: by the system's counts as they are given, and beside processes that really compute."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, NamedTuple

import psutil
import pytest

from irm_lite.core.machine import free_cores
from irm_lite.core.machine.free_cores import FreeCores
from irm_lite.core.machine.usable_cores import usable_cores


class Times(NamedTuple):
    """Of one core, in seconds, as psutil has them on Linux; `user` holds `guest`."""

    user: float
    idle: float
    iowait: float
    steal: float
    guest: float


def may_run_on(cores: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(free_cores, "allowed_cores", lambda: cores)
    monkeypatch.setattr(free_cores, "usable_cores", lambda: len(cores))


def test_what_others_take_is_counted_and_what_this_process_takes_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    now = SimpleNamespace(clock=100.0, own=7.0, cores=[Times(50, 50, 0, 0, 9) for _ in range(4)])
    monkeypatch.setattr(free_cores, "time", SimpleNamespace(monotonic=lambda: now.clock, process_time=lambda: now.own))
    monkeypatch.setattr(free_cores, "psutil", SimpleNamespace(cpu_times=lambda percpu: now.cores))
    may_run_on((0, 1, 2), monkeypatch)
    cores = FreeCores()
    assert cores.left() == 3
    now.clock, now.own = 100.25, 7.25
    now.cores = [Times(52, 50, 0, 0, 9) for _ in range(4)]
    assert cores.left() == 3  # not looked at again yet
    now.clock, now.own = 102.0, 9.0
    # Two seconds: core 0 computes for a guest, the host takes core 1, core 2 waits for a disk, core 3 is not ours to use. Four
    # busy seconds, two of which are our own: one core of three.
    now.cores = [Times(52, 50, 0, 0, 11), Times(50, 50, 0, 2, 9), Times(50, 50, 2, 0, 9), Times(54, 50, 0, 0, 9)]
    assert cores.left() == 2
    now.clock, now.own = 103.0, 10.0  # a second more for the guest and for the host, and our own on core 2
    now.cores = [Times(53, 50, 0, 0, 12), Times(50, 50, 0, 3, 9), Times(51, 50, 2, 0, 9), Times(55, 50, 0, 0, 9)]
    assert cores.left() == 1
    now.clock, now.own = 104.0, 11.0
    now.cores = [Times(54, 50, 0, 0, 13), *now.cores[1:]]
    assert cores.left() == 3


def test_others_beside_a_quota_take_of_the_cores_that_it_leaves_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time of two cores on a host of eight: up to six others take nothing from it."""
    now = SimpleNamespace(clock=0.0, own=0.0, busy=0.0)
    monkeypatch.setattr(free_cores, "time", SimpleNamespace(monotonic=lambda: now.clock, process_time=lambda: now.own))

    def cpu_times(percpu: bool) -> list[Times]:
        return [Times(now.own, 0, 0, 0, 0), *[Times(now.busy, 0, 0, 0, 0)] * 7]

    monkeypatch.setattr(free_cores, "psutil", SimpleNamespace(cpu_times=cpu_times))
    may_run_on(tuple(range(8)), monkeypatch)
    monkeypatch.setattr(free_cores, "usable_cores", lambda: 2)
    cores = FreeCores()
    assert (cores.all, cores.left()) == (2, 2)
    now.clock, now.own, now.busy = 10.0, 10.0, 8.0  # 5.6 of seven
    assert cores.left() == 2
    now.clock, now.own, now.busy = 20.0, 20.0, 18.0  # seven of seven
    assert cores.left() == 1


def test_a_span_in_which_this_process_was_idle_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that waits for its next request while others compute: they may have ended when it comes."""
    now = SimpleNamespace(clock=0.0, own=0.0, busy=0.0)
    monkeypatch.setattr(free_cores, "time", SimpleNamespace(monotonic=lambda: now.clock, process_time=lambda: now.own))
    monkeypatch.setattr(free_cores, "psutil", SimpleNamespace(cpu_times=lambda percpu: [Times(now.busy, 0, 0, 0, 0)] * 2))
    may_run_on((0, 1), monkeypatch)
    cores = FreeCores()
    now.clock, now.busy = 60.0, 60.0
    assert cores.left() == 2
    now.clock, now.busy, now.own = 61.0, 61.0, 1.0
    assert cores.left() == 1
    now.clock = 99.0
    assert cores.left() == 1


@pytest.mark.parametrize("error", [PermissionError(), psutil.AccessDenied(), TypeError("of a /proc/stat of four columns")])
def test_where_the_system_tells_nothing_all_are_free(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: Any) -> None:
        raise error

    monkeypatch.setattr(psutil, "cpu_times", refuse)
    monkeypatch.setattr(free_cores, "_SPAN", 0)
    assert FreeCores().left() == usable_cores()


@pytest.fixture
def busy_processes() -> Iterator[None]:
    running = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(usable_cores())]
    yield
    for each in running:
        each.kill()
        each.wait()


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="the counts of one's own cores")
def test_real_processes_are_seen(busy_processes: None) -> None:
    cores = FreeCores()
    until = time.monotonic() + 60
    while (left := cores.left()) == cores.all and time.monotonic() < until:
        pass
    assert left < cores.all
