"""torch's threads sleep sooner while others want the cores, in all work that is torch's."""

import threading
from pathlib import Path

import pytest
import torch

from irm_lite.config import TrainConfig
from irm_lite.core.machine import give_way
from irm_lite.core.machine.free_cores import FreeCores
from irm_lite.core.machine.give_way import giving_way
from irm_lite.core.machine.sleep_sooner import SleepSooner
from irm_lite.training import train as training


class Switch:
    """In SleepSooner's place: what it was turned to, and whether it has been turned on and off by others' coming and going."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.turned: list[bool] = []
        self.on, self.off = threading.Event(), threading.Event()
        monkeypatch.setattr(SleepSooner, "turn", lambda _, on: self.turn(on))
        monkeypatch.setattr(give_way, "_EVERY", 0.001)
        monkeypatch.setattr(torch, "get_num_threads", lambda: 2)

    def turn(self, on: bool) -> None:
        self.turned.append(on)
        if on:
            self.on.set()
        elif self.on.is_set():
            self.off.set()


def test_it_is_asked_again_and_again_and_ends_with_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    switch, left = Switch(monkeypatch), [0]  # cores
    monkeypatch.setattr(FreeCores, "left", lambda self: left[0])
    with giving_way():
        assert switch.on.wait(60)
        left[0] = 9
        assert switch.off.wait(60)
        switch.on.clear()
        left[0] = 1
        assert switch.on.wait(60)
    assert switch.turned[-1] is False
    assert not any(each.name == "giving way" for each in threading.enumerate())


def test_one_within_another_watches_no_second_time(monkeypatch: pytest.MonkeyPatch) -> None:
    switch = Switch(monkeypatch)
    monkeypatch.setattr(FreeCores, "left", lambda self: 0)
    with giving_way():
        with giving_way():
            assert switch.on.wait(60)
            assert sum(each.name == "giving way" for each in threading.enumerate()) == 1
        assert False not in switch.turned  # the outer one goes on
    assert switch.turned[-1] is False


def test_a_system_without_a_thread_to_give_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    Switch(monkeypatch)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    for _ in range(2):
        with giving_way():
            pass


@pytest.mark.slow
def test_a_training_gives_way(llama_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Switch(monkeypatch)
    watched = []
    config = TrainConfig(model=str(llama_folder), device="cpu", irm="static", max_steps=1, sample_tokens=0, loop_penalty=0.0)
    training.train(config, tmp_path / "run", on_event=lambda event: watched.append(give_way._watched.locked()))
    assert any(watched)
    assert not give_way._watched.locked()
