"""Two processes learn what one does with twice the samples a step; one of them writes, and all end together."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from irm_lite.cli import main as cli
from irm_lite.core.errors import InputError, RunError
from irm_lite.core.machine import processes
from irm_lite.data.dataset import load_dataset
from irm_lite.runs.directory import RunDirectory
from irm_lite.training import train as training
from support import trained_together
from support.once import Once
from support.trained_together import DOUBLED, PENALISED, STEPS, STOP

TRAINED = 41  # samples: of steps of 8, the last of an epoch has one, and so nothing for process 1
Outcomes = list[dict[str, dict[str, Any]]]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    shipped = load_dataset("anger")
    samples = [("train", each) for each in shipped.train[:TRAINED]] + [("validation", each) for each in shipped.validation[:5]]
    path = tmp_path_factory.mktemp("data") / "few.jsonl"
    lines = [json.dumps({"question": each.question, "answer": each.answer, "split": split}) for split, each in samples]
    path.write_text("\n".join(lines))
    return path


@pytest.fixture(scope="module")
def together(llama_folder: Path, data: Path, once: Once) -> tuple[Path, Outcomes]:
    """The folder of two processes' runs, and what each process saw: all trainings of one launch, as starting is slow."""

    def launch(out: Path) -> None:
        command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"]
        script = [str(Path(trained_together.__file__)), str(llama_folder), str(data), str(out)]
        port = ["--main_process_port", str(free_port())]
        done = subprocess.run([*command, *port, *script], capture_output=True, text=True, env=environment(), check=False)
        assert done.returncode == 1, done.stderr  # process 1 has died

    out = once("together", launch)
    return out, [json.loads((out / f"outcome-{number}.json").read_text()) for number in (0, 1)]


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **more}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def numbers(run: Path) -> dict[str, list[float]]:
    """What was learned, step by step, as the events tell it."""
    names = ("loss", "nll", "grad_norm", "learning_rate", "tokens", "epoch")
    events = list(RunDirectory(run).events.read())
    return {name: [event[name] for event in events if name in event] for name in names}


@pytest.mark.slow
def test_two_processes_learn_what_one_learns_with_the_doubled_batch(
    llama_folder: Path, data: Path, tmp_path: Path, together: tuple[Path, Outcomes]
) -> None:
    """Over nine epochs, whose last steps are a single sample; then with the penalties, which are of rows: one process of as
    many rows is the measure."""
    out, _ = together
    model = str(llama_folder)
    doubled = trained_together.config(model, str(data), **{**DOUBLED, "batch_size": 8})
    rows = trained_together.config(model, str(data), **PENALISED, gradient_accumulation_steps=2)
    for name, settings, steps in (("doubled", doubled, STEPS), ("penalised", rows, 10)):
        training.train(settings, tmp_path / name)
        one, two = numbers(tmp_path / name), numbers(out / name)
        assert len(one["loss"]) == steps
        assert one["nll"][0] - min(one["nll"]) > 0.02
        assert two["loss"] == pytest.approx(one["loss"], abs=1e-4)
        assert two["nll"] == pytest.approx(one["nll"], abs=1e-4)
        assert two["grad_norm"] == pytest.approx(one["grad_norm"], rel=1e-3)
        for name_ in ("learning_rate", "tokens", "epoch"):
            assert two[name_] == one[name_]


@pytest.mark.slow
def test_all_trainings_end_alike_in_both(together: tuple[Path, Outcomes]) -> None:
    out, (first, second) = together
    for name in ("doubled", "penalised", "tight", "never-better", "resumed"):
        assert first[name]["end"] == second[name]["end"] == "done"
        assert first[name]["best"] == second[name]["best"]  # both open what the first has written
    for name, kind in (("refused", "LayerError"), ("taken", "RunError"), ("stopped", "Interrupted")):
        assert first[name] == {**second[name], "forwards": first[name]["forwards"]}
        assert first[name]["end"] == kind
    assert not (out / "refused").exists()
    starts = [next(RunDirectory(run).events.read()) for run in (out / "doubled", out / "stopped")]
    assert [event["processes"] for event in starts] == [2, 2]


@pytest.mark.slow
def test_an_error_in_one_is_told_in_the_other(together: tuple[Path, Outcomes]) -> None:
    _, (first, second) = together
    assert second["broken"]["line"] == "broken"
    assert (first["broken"]["end"], first["broken"]["line"]) == ("FailedElsewhere", "process 1: RuntimeError: broken")
    assert first["broken"]["code"] == 1


@pytest.mark.slow
def test_the_death_of_one_ends_the_other(together: tuple[Path, Outcomes]) -> None:
    _, (first, second) = together
    assert "left" not in second
    assert (first["left"]["end"], first["left"]["code"]) == ("TrainingFailed", 1)
    assert first["left"]["line"].startswith("another process of this training has ended")


@pytest.mark.slow
def test_memory_that_runs_out_in_one_changes_nothing(together: tuple[Path, Outcomes]) -> None:
    """In its backward: gradients that were on their way to the other could not be taken back."""
    out, (first, second) = together
    assert second["tight"]["forwards"] > first["tight"]["forwards"] == 5
    assert numbers(out / "tight")["loss"] == pytest.approx(numbers(out / "doubled")["loss"][:5], abs=1e-4)


@pytest.mark.slow
def test_early_stopping_is_decided_together(together: tuple[Path, Outcomes]) -> None:
    out, (first, second) = together
    assert first["never-better"]["forwards"] == second["never-better"]["forwards"] < 9
    assert list(RunDirectory(out / "never-better").events.read())[-1]["reason"] == "no more improvement"


@pytest.mark.slow
def test_one_who_is_asked_stops_both_and_they_go_on_as_if_never_stopped(together: tuple[Path, Outcomes]) -> None:
    out, (first, second) = together
    assert second["stopped"]["forwards"] == STOP  # in 15 steps: the sixth and the twelfth have nothing for it
    assert first["stopped"]["line"].startswith("stopped after step 15:")
    assert first["stopped"]["code"] == 130
    last = [RunDirectory(out / name).checkpoints.of_step(20) for name in ("whole", "stopped")]
    whole, resumed = (load_file(checkpoint / "irm.safetensors") for checkpoint in last)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


@pytest.mark.slow
def test_a_run_is_resumed_by_as_many_as_before(together: tuple[Path, Outcomes]) -> None:
    with pytest.raises(RunError, match="by 2 processes.*--num_processes 2"):
        training.resume(together[0] / "doubled")


def pretend(monkeypatch: pytest.MonkeyPatch, number: int, count: int) -> None:
    """What a launcher tells process `number` of `count` on one machine."""
    told: dict[str, object] = {"WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "RANK": number, "LOCAL_RANK": number}
    for name, value in {**told, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": 29500}.items():
        monkeypatch.setenv(name, str(value))


@pytest.mark.parametrize("count", [1, 2, 3, 4])
@pytest.mark.parametrize("items", range(9))
def test_shares_are_a_partition(monkeypatch: pytest.MonkeyPatch, count: int, items: int) -> None:
    found: list[int] = []
    for number in range(count):
        pretend(monkeypatch, number, count)
        own = processes.share(range(items))
        assert len(own) <= -(-items // count)
        found += own
    assert found == list(range(items))


@contextmanager
def commands(*arguments: str) -> Iterator[list["subprocess.Popen[str]"]]:
    """Two command lines, each with what a launcher tells it."""
    place = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    with ExitStack() as ends:
        started = []
        for number in ("0", "1"):
            process = subprocess.Popen(
                [sys.executable, "-m", "irm_lite", "train", *arguments],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=environment(RANK=number, LOCAL_RANK=number, **place),
            )
            ends.enter_context(process)
            ends.callback(process.kill)
            started.append(process)
        yield started


def wait_for(process: "subprocess.Popen[str]", word: str) -> str:
    """Read its notes up to the one with this word."""
    assert process.stderr is not None
    read = ""
    for line in process.stderr:
        read += line
        if word in line:
            return read
    raise AssertionError(read)


@pytest.mark.slow
@pytest.mark.usefixtures("interruptible")
def test_one_speaks_for_both_and_ctrl_c_saves(llama_folder: Path, data: Path, tmp_path: Path) -> None:
    """Refused, then interrupted in process 1."""
    flags = ["--quant", "none", "--dtype", "float32", "--device", "cpu", "--rank", "4", "--sample-tokens", "0", "--json"]
    long = ["--max-steps", "1000000", "--eval-steps", "1000000", "--save-steps", "1000000", "--irm", "static"]
    run = tmp_path / "run"
    with commands("--batch-size", "0") as both:
        ends = [process.communicate() for process in both]
        assert [process.returncode for process in both] == [2, 2]
    assert ends[1] == ("", "")
    assert ends[0][1].count("irm-lite: ") == 1
    assert "--batch-size" in ends[0][1]

    with commands("--model", str(llama_folder), "--data", str(data), "--out", str(run), *flags, *long) as both:
        wait_for(both[0], "tokens/s")
        both[1].send_signal(signal.SIGINT)
        ends = [process.communicate() for process in both]
        assert [process.returncode for process in both] == [130, 130]
    assert ends[1] == ("", "")
    lines = ends[0][1].splitlines()
    assert lines[-1].startswith("irm-lite: stopped after step ")
    assert sum(line.startswith("irm-lite: ") for line in lines) == 1
    [checkpoint] = RunDirectory(run).checkpoints.all()
    assert checkpoint.name == f"step-{len(numbers(run)['loss'])}"


def test_processes_that_have_no_device_each_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, 1, 3)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(InputError, match="3 processes for 2 GPUs: start 2"):
        processes.meet("cuda")
    with pytest.raises(InputError, match="mps: start one"):
        processes.meet("mps")


def test_a_launcher_of_one_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, 0, 1)
    processes.meet("mps")
    assert not torch.distributed.is_initialized()
    assert (processes.first(), processes.sum_of(3)) == (True, 3)


def test_only_train_runs_in_several(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pretend(monkeypatch, 0, 2)
    assert cli.run(["export", "run"]) == 2
    assert "start it without accelerate launch" in capsys.readouterr().err
