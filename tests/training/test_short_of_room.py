"""Memory that runs out in a training, and a disk without room for it."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from irm_lite.config import TrainConfig
from irm_lite.core.errors import InputError, RanOut, RunError
from irm_lite.runs.checkpoints import Checkpoints
from irm_lite.runs.directory import RunDirectory
from irm_lite.training import train as training
from irm_lite.training.setup import disk_space
from irm_lite.training.setup import prepare as preparing
from irm_lite.training.step import injected_model
from support.small_training import config

Event = dict[str, Any]


@pytest.mark.slow
@pytest.mark.parametrize("fails", ["forward", "backward"])
def test_a_step_that_runs_out_of_memory_is_taken_in_more_rows(
    llama_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    options: dict[str, Any] = {"max_steps": 3, "eval_steps": 3, "irm": "paper", "l1": 0.0, "batch_size": 8}
    training.train(config(llama_folder, **options), tmp_path / "enough")
    forward, sizes = injected_model.InjectedModel.forward, []

    def tight(model: Any, samples: Any, num_items: Any = None) -> torch.Tensor:
        """No more than three samples fit: the second row of a step fails, too, once the first has left its gradients."""
        sizes.append(len(samples))
        loss = forward(model, samples, num_items)
        if len(samples) > 3 and fails == "forward":
            raise torch.OutOfMemoryError("CUDA out of memory")
        if len(samples) > 3:
            loss.register_hook(fail)  # type: ignore[no-untyped-call]
        return loss

    def fail(_gradient: torch.Tensor) -> None:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(injected_model.InjectedModel, "forward", tight)
    seen: list[Event] = []
    training.train(config(llama_folder, **options), tmp_path / "tight", on_event=seen.append)
    assert sizes == [8, 4, *[2] * 12]
    told = [event["text"] for event in seen if event["kind"] == "warning"]
    assert [text.split(" in ")[1] for text in told if text.startswith("memory ran out")] == ["2 rows", "4 rows"]
    enough = [event for event in RunDirectory(tmp_path / "enough").events.read() if event["kind"] in ("step", "eval")]
    for one, other in zip(enough, [event for event in seen if event["kind"] in ("step", "eval")], strict=True):
        for name in {"loss", "nll", "grad_norm"} & one.keys():
            assert other[name] == pytest.approx(one[name], rel=1e-4)
        assert one.get("tokens") == other.get("tokens")


@pytest.mark.parametrize("step", ["load_base_of", "mean_nll"])
@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("std::bad_alloc")])
def test_memory_that_is_short_before_the_first_step_is_told(
    llama_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, error: Exception
) -> None:
    def short(*_: object) -> None:
        raise error

    monkeypatch.setattr(preparing if step == "load_base_of" else training, step, short)
    with pytest.raises(RanOut, match="memory ran out"):
        training.train(TrainConfig(irm="lite", model=str(llama_folder), quant="none", device="cpu"), tmp_path / "run")
    assert not (tmp_path / "run" / "run.toml").exists()


def test_memory_that_is_short_even_for_one_sample_ends_the_training(
    llama_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: Any, **__: Any) -> torch.Tensor:
        raise RuntimeError("MPS backend out of memory (MPS allocated: 6.00 GB)")

    monkeypatch.setattr(injected_model.InjectedModel, "forward", none)
    with pytest.raises(RanOut, match="memory ran out"):
        training.train(config(llama_folder), tmp_path / "run")


@pytest.mark.slow
def test_a_disk_without_room_for_the_checkpoints_is_refused_before_anything_is_written(
    llama_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The most that a run ever holds, on a file system without links, with the best IRM of another step beside each."""

    def held(checkpoints: Checkpoints, step: int, keep: int) -> None:
        sizes.append(sum(path.stat().st_size for path in checkpoints.path.parent.rglob("*") if path.is_file()))
        real(checkpoints, step, keep)

    def no_links(*_: object) -> None:
        raise OSError("no links here")

    sizes: list[int] = []
    real = Checkpoints.thin
    monkeypatch.setattr(Checkpoints, "thin", held)
    monkeypatch.setattr(os, "link", no_links)
    settings = config(llama_folder, save_total_limit=2, width=512, max_steps=12, eval_steps=5, save_steps=3)
    run = tmp_path / "run"
    training.train(settings, run)
    weights = (run / "irm.safetensors").stat().st_size
    most = max(sizes) + weights  # and the IRM's next one, while it is written
    found: list[int] = []
    for free in (most - 1, most + disk_space.REST_BYTES + weights):
        monkeypatch.setattr(disk_space, "free_space", lambda _, free=free: free)
        try:
            training.train(settings, tmp_path / f"with {free}")
        except RunError as refused:
            assert "make space" in str(refused)
            assert refused.exit_code == 2
            assert not (tmp_path / f"with {free}").exists()
            found.append(free)
    assert found == [most - 1]
    training.resume(run)  # what is there already needs no more room


def test_a_place_that_cannot_be_written_is_refused_before_the_base_is_loaded(
    llama_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparing, "load_base_of", lambda _: pytest.fail("the base was loaded"))
    with pytest.raises(InputError, match="cannot be written"):
        training.train(config(llama_folder), Path("/proc/run"))


@pytest.mark.slow
def test_a_live_snapshot_that_cannot_be_written_is_a_warning(
    llama_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("irm_lite.training.reporter.save_tensors", full)
    monkeypatch.setattr(injected_model, "LIVE_SECONDS", 0.0)
    training.train(config(llama_folder), tmp_path / "run")
    [warning] = [event["text"] for event in RunDirectory(tmp_path / "run").events.read() if event["kind"] == "warning"]
    assert "live heatmap" in warning
    assert not list((tmp_path / "run").glob("*live*"))
