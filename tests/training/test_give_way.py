"""A training's threads sleep sooner at each step that others want the cores."""

from pathlib import Path

import pytest

from irm_lite.config import TrainConfig
from irm_lite.core.machine.free_cores import FreeCores
from irm_lite.core.machine.sleep_sooner import SleepSooner
from irm_lite.training import train as training


@pytest.mark.slow
def test_it_is_asked_at_each_step_and_ends_with_the_training(
    llama_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    turned: list[bool] = []
    left = iter((9, 0, 9))  # cores
    monkeypatch.setattr(SleepSooner, "turn", lambda self, on: turned.append(on))
    monkeypatch.setattr(FreeCores, "left", lambda self: next(left))
    config = TrainConfig(model=str(llama_folder), device="cpu", irm="static", max_steps=3, sample_tokens=0, loop_penalty=0.0)
    training.train(config, tmp_path / "run")
    assert turned == [False, True, False, False]
