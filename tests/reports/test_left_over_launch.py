"""Variables that a launcher, or accelerate's settings of another project, have left in the environment."""

import io
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import accelerate
import pytest

from irm_lite.cli import main as cli
from irm_lite.config import TrainConfig
from irm_lite.core.errors import InputError
from irm_lite.core.machine import processes
from irm_lite.core.machine.launch import launched, not_heeded, set_aside
from irm_lite.runs.directory import RunDirectory
from irm_lite.training import train as training

LAUNCH = {"LOCAL_RANK": "0", "RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}


@pytest.mark.parametrize(
    "left",
    [
        {"LOCAL_RANK": "0"},
        {"LOCAL_RANK": "3"},
        {"WORLD_SIZE": "2", "RANK": "0"},
        {"LOCAL_RANK": "0", "RANK": "0", "WORLD_SIZE": "2"},
        {**LAUNCH, "WORLD_SIZE": "two"},
        {**LAUNCH, "RANK": "2"},
        {**LAUNCH, "MASTER_PORT": ""},
        {"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "1"},
    ],
)
def test_what_is_left_of_a_launch_is_none(left: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A shell kept what a launcher had set for a job of the day before: accelerate waited for processes, or failed unexpectedly."""
    for name, value in left.items():
        monkeypatch.setenv(name, value)
    assert launched() is None
    assert (processes.count(), processes.number(), processes.on_this_machine()) == (1, 0, 1)
    before = dict(os.environ)
    with set_aside(), set_aside():  # of the command line, of the training
        assert not left.keys() & os.environ.keys()
        asked = [f"{name}={value}" for name, value in left.items() if value not in ("0", "", "127.0.0.1", "29500")]
        told = not_heeded() or ""
        assert all(each in told for each in asked if not each.startswith("MASTER"))
        assert bool(told) == bool(asked)
    assert (dict(os.environ), not_heeded()) == (before, None)


def test_a_real_launch_is_heeded(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**LAUNCH, "RANK": "1", "LOCAL_WORLD_SIZE": "2", "ACCELERATE_MIXED_PRECISION": "no"}.items():
        monkeypatch.setenv(name, value)
    with set_aside():
        assert (processes.count(), processes.number(), processes.on_this_machine()) == (2, 1, 2)
        assert os.environ.keys() >= LAUNCH.keys()
        assert "ACCELERATE_MIXED_PRECISION" not in os.environ
        assert not_heeded() is None


def quick(model: Path, **changes: Any) -> TrainConfig:
    settings: dict[str, Any] = {"model": str(model), "quant": "none", "device": "cpu", "dtype": "float32", "irm": "static"}
    return TrainConfig(**{**settings, "max_steps": 2, "batch_size": 2, "eval_steps": 2, "sample_tokens": 0, **changes})


@pytest.mark.slow
@pytest.mark.parametrize(
    "left",
    [
        {"ACCELERATE_MIXED_PRECISION": "bf16"},
        {"ACCELERATE_MIXED_PRECISION": "fp8", "ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_USE_FSDP": "1"},
        {"ACCELERATE_DYNAMO_BACKEND": "INDUCTOR", "ACCELERATE_USE_MEGATRON_LM": "true", "ACCELERATE_TORCH_DEVICE": "xpu"},
        {"ACCELERATE_USE_CPU": "perhaps"},
        {"WORLD_SIZE": "2", "RANK": "0"},
    ],
)
def test_a_training_is_the_same_to_the_bit_whatever_was_left(
    left: dict[str, str], llama_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A notebook's first cell had set accelerate up for another project: trainings failed, or were bfloat16 without a word."""

    def losses(out: Path) -> list[float]:
        training.train(quick(llama_folder), out)
        return [event["loss"] for event in RunDirectory(out).events.read() if event["kind"] == "step"]

    plain = losses(tmp_path / "plain")
    for name, value in left.items():
        monkeypatch.setenv(name, value)
    assert losses(tmp_path / "odd") == plain
    assert left.items() <= os.environ.items()
    warnings = [event["text"] for event in RunDirectory(tmp_path / "odd").events.read() if event["kind"] == "warning"]
    named = [f"{name}={value}" for name, value in left.items() if value != "0"]
    assert len(warnings) == 1
    assert all(each in warnings[0] for each in named)


def test_nothing_is_reported_unasked(llama_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys of services that another project reports to; transformers reports to Kubeflow where its address is set, asked or not."""
    import transformers.integrations.integration_utils as services

    monkeypatch.setenv("KUBEFLOW_TRAINER_SERVER_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_API_KEY", "x")
    made: list[str] = []

    def noted(name: str) -> Any:
        return lambda *_args, **_options: made.append(name)

    for name in dir(services):
        if name.endswith("Callback") and name not in ("TrainerCallback", "ProgressCallback", "PrinterCallback"):
            monkeypatch.setattr(getattr(services, name), "__init__", noted(name))
    training.train(quick(llama_folder, max_steps=1), tmp_path / "run")
    assert made == []


@pytest.mark.usefixtures("interruptible")
def test_who_waits_for_others_is_told_for_what(monkeypatch: pytest.MonkeyPatch) -> None:
    """All that a launcher sets was left over: the training waited for half an hour without a word, deaf to ctrl+c."""
    for name, value in LAUNCH.items():
        monkeypatch.setenv(name, value)
    told, heard = threading.Event(), io.StringIO()

    class Terminal:
        def write(self, text: str) -> None:
            heard.write(text)
            told.set()

    def wait(cpu: bool) -> None:
        assert told.wait(30)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL
        raise RuntimeError("nobody\ncame")

    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(sys, "__stderr__", Terminal())
    monkeypatch.setattr(processes, "_PATIENCE", 0.0)
    monkeypatch.setattr(accelerate, "PartialState", wait)
    with pytest.raises(InputError, match=r"cannot be reached \(nobody came\): .*WORLD_SIZE=2.*unset LOCAL_RANK, RANK, WORLD_SIZE"):
        processes.meet("cpu")
    assert "waiting for the other processes" in heard.getvalue()
    assert "unset LOCAL_RANK, RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT" in heard.getvalue()
    assert signal.getsignal(signal.SIGINT) is before


def test_other_verbs_name_what_was_left(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """`doctor` in the same shell spoke of accelerate launch, which nobody had called."""
    for name, value in LAUNCH.items():
        monkeypatch.setenv(name, value)
    assert cli.run(["doctor"]) == 2
    assert "unset (LOCAL_RANK=0, RANK=0, WORLD_SIZE=2)" in capsys.readouterr().err
