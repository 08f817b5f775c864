"""A training whose loss or gradient is lost ends, at its last good state."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from irm_lite.core.errors import TrainingFailed
from irm_lite.runs.directory import RunDirectory
from irm_lite.steering.irm_files import load_irm
from irm_lite.training import train as training
from irm_lite.training.divergence import steps_far_above
from irm_lite.training.step import injected_model
from irm_lite.training.step.answer_loss import answer_nll
from support.small_training import config


def test_a_loss_that_is_not_finite_stops_with_advice(llama_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(head: Any, hidden: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        steps.extend([1] if torch.is_grad_enabled() else [])  # validation runs without gradients
        return answer_nll(head, hidden, labels, weights) * (math.nan if len(steps) == 3 else 1.0)

    steps: list[int] = []
    monkeypatch.setattr(injected_model, "answer_nll", broken)
    with pytest.raises(TrainingFailed, match="--learning-rate") as failure:
        training.train(config(llama_folder, eval_steps=6), tmp_path / "run")
    assert failure.value.exit_code == 1
    assert list(RunDirectory(tmp_path / "run").events.read())[-1]["reason"] == "the loss became nan at step 3"


def poisoned(loss: torch.Tensor) -> torch.Tensor:
    loss.register_hook(lambda gradient: gradient * math.nan)  # type: ignore[no-untyped-call]
    return loss


def raised(loss: torch.Tensor) -> torch.Tensor:
    return loss + 1e6


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spoil", "told"),
    [(poisoned, "the gradient's norm became nan at step 6"), (raised, "the training diverges: by step 24 the loss")],
)
def test_a_training_that_diverges_ends_at_its_last_good_state(
    llama_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: Any, told: str
) -> None:
    """From the sixth step or from the fifth on: the gradient is NaN, or the loss huge."""

    def broken(head: Any, hidden: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        loss = answer_nll(head, hidden, labels, weights)
        steps.extend([1] if torch.is_grad_enabled() else [])
        return spoil(loss) if loss.requires_grad and len(steps) >= (6 if spoil is poisoned else 5) else loss

    steps: list[int] = []
    monkeypatch.setattr(injected_model, "answer_nll", broken)
    settings = config(llama_folder, max_steps=30, eval_steps=4, save_steps=3, early_stopping_patience=0)
    with pytest.raises(TrainingFailed, match="--learning-rate below 0.001") as failure:
        training.train(settings, tmp_path / "run")
    assert failure.value.exit_code == 1
    run = RunDirectory(tmp_path / "run")
    reason = list(run.events.read())[-1]["reason"]
    assert reason.startswith(told)
    assert reason == failure.value.what
    newest = run.checkpoints.newest_sound()
    assert newest is not None
    assert newest.name == "step-3"  # no later one was good
    for folder in (newest, run.path):
        assert all(parameter.isfinite().all() for parameter in load_irm(folder).parameters())


def test_far_above_is_what_guessing_costs_above_the_first() -> None:
    above = 3.0 + math.log(640) + 0.01

    def after(*losses: float, allowance: float = 0.0) -> int:
        history = [{"eval_loss": 99.0}, {"loss": 3.0}, *({"loss": loss} for loss in losses), {"eval_loss": 99.0}]
        return steps_far_above(history, 640, allowance)

    assert after(*[above] * 20) == 20
    assert after(*[above] * 10, 2.0, *[above] * 3) == 3
    assert after(above, above - 0.02) == 0
    assert after(above, allowance=1.0) == 0
    assert steps_far_above([], 640) == 0
