"""What a hostile or unlucky user did to it once, and what it says now."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from irm_lite.base.load import load_base
from irm_lite.cli import main as cli
from irm_lite.config import TrainConfig
from irm_lite.core.errors import BaseModelError, DataError, InputError, IrmLiteError, RunError, TrainingFailed, VectorError
from irm_lite.core.files.manifest import write_manifest
from irm_lite.runs.trained import load_run
from irm_lite.steering.control_vector import parse_vector_argument
from irm_lite.steering.injection import inject
from irm_lite.steering.irm import build_irm
from irm_lite.training import train as training


def quick(model: Path, **changes: Any) -> TrainConfig:
    settings: dict[str, Any] = {
        "model": str(model),
        "quant": "none",
        "device": "cpu",
        "max_steps": 2,
        "batch_size": 4,
        "irm": "lite",
        "rank": 4,
    }
    return TrainConfig(**{**settings, "eval_steps": 1, "sample_tokens": 0, **changes})


@pytest.fixture
def finished(llama_folder: Path, tmp_path: Path) -> Path:
    training.train(quick(llama_folder), tmp_path / "run")
    return tmp_path / "run"


@pytest.mark.parametrize("quant", ["none", "nf4"])
def test_a_base_that_lacks_weights_or_layers_is_refused(llama_folder: Path, tmp_path: Path, quant: Any) -> None:
    holed = tmp_path / "holed"
    shutil.copytree(llama_folder, holed)
    weights = load_file(holed / "model.safetensors")
    kept = {name: tensor for name, tensor in weights.items() if "layers.1.mlp" not in name}
    save_file(kept, holed / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BaseModelError, match=r"layers\.1\.mlp"):
        load_base(str(holed), quant=quant, device="cpu")
    shorter = tmp_path / "shorter"
    shutil.copytree(llama_folder, shorter)
    config = json.loads((shorter / "config.json").read_text())
    (shorter / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 2}))
    with pytest.raises(BaseModelError, match=r"layers\.2"):
        load_base(str(shorter), quant=quant, device="cpu")


def test_a_folder_named_like_a_tone_does_not_enter_the_run(
    llama_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "anger").mkdir()
    training.train(quick(llama_folder, data="anger"), Path("run"))
    assert load_run("run").config.data == "anger"
    monkeypatch.chdir("/")
    assert load_run(tmp_path / "run").base.n_layers == 3  # a relative model path was made absolute


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("hello world", "the chat template leaves out what the user says"),
        ("{{ raise_exception('no way') }}", "the chat template fails on any conversation .no way"),
        ("{% for x in %}", "the chat template fails on any conversation .*line 1"),
        ("{{ 1 / 0 }}", "division"),
    ],
)
def test_bad_chat_templates_are_named(llama_folder: Path, tmp_path: Path, template: str, message: str) -> None:
    (tmp_path / "t.jinja").write_text(template)
    with pytest.raises(InputError, match=message):
        training.train(quick(llama_folder, chat_template=str(tmp_path / "t.jinja")), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_answer_with_the_end_token_in_it_is_refused(llama_folder: Path, tmp_path: Path) -> None:
    rows = [{"question": f"q {n}?", "answer": "Fine. </s> hidden rest"} for n in range(30)]
    (tmp_path / "d.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(DataError, match="line 1.*end-of-turn"):
        training.train(quick(llama_folder, data=str(tmp_path / "d.jsonl")), tmp_path / "run")


def test_no_held_out_sample_is_said_not_computed_with(llama_folder: Path, tmp_path: Path) -> None:
    rows = [{"question": f"q {n}?", "answer": "yes", "split": "train" if n % 2 else "validation"} for n in range(20)]
    rows.append({"question": "long?", "answer": "very " * 300, "split": "test"})
    (tmp_path / "d.jsonl").write_text("\n".join(map(json.dumps, rows)))
    events: list[dict[str, Any]] = []
    run = training.train(
        quick(llama_folder, data=str(tmp_path / "d.jsonl"), max_length=64), tmp_path / "run", on_event=events.append
    )
    assert events[0]["samples"]["too_long"] == 1
    with pytest.raises(DataError, match="--max-length"):
        _ = run.held_out


def test_misuse_of_inject_and_load_base_is_named(llama_folder: Path) -> None:
    base = load_base(str(llama_folder), quant="none", device="cpu")
    irm = build_irm("static", 64, (1, 2))
    for model, what, layers in [(base, irm, None), (base.model, "irm", None), (base.model, irm, [99]), (base.model, irm, "0-1")]:
        with pytest.raises(InputError), inject(model, what, layers=layers):  # type: ignore[arg-type]
            pass
    for options in ({"quant": "q4"}, {"dtype": "bf16"}, {"device": "tpu"}):
        with pytest.raises(InputError, match=r"choose|one of"):
            load_base(str(llama_folder), **options)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="attn or block"):
        build_irm("static", 64, (1,), "foo")  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("trainer_state.json", "{"),
        ("rng.json", '{"dict": []}'),
        ("scheduler.json", "[]"),
        ("optimizer.json", '{"dict": []}'),
        ("irm.safetensors", "x"),
    ],
)
def test_a_wrong_checkpoint_that_its_manifest_vouches_for_is_one_line(finished: Path, file: str, content: str) -> None:
    (finished / "checkpoints" / "step-2" / file).write_text(content)
    write_manifest(finished / "checkpoints" / "step-2", {})  # as somebody would who means it
    (finished / "checkpoints" / "step-\u00b2").mkdir()  # a digit to str.isdigit, not to int
    lengthen(finished)
    with pytest.raises(RunError) as refusal:
        training.resume(finished)
    assert "step-2" in str(refusal.value)


def lengthen(run: Path) -> None:
    settings = (run / "run.toml").read_text()
    (run / "run.toml").write_text(settings.replace("max_steps = 2", "max_steps = 4"))


@pytest.mark.slow
@pytest.mark.parametrize("file", ["irm.safetensors", "optimizer.safetensors", "trainer_state.json", "manifest.json"])
def test_the_checkpoint_before_a_damaged_one_is_taken_and_that_is_told(finished: Path, file: str) -> None:
    whole = {path.name: path.read_bytes() for path in (finished / "checkpoints" / "step-2").iterdir() if path.is_file()}
    (finished / "checkpoints" / "step-2" / file).unlink()
    (finished / "checkpoints" / "step-2" / file).write_bytes(b"\0")  # another file: the IRM's second name stays as it is
    events: list[dict[str, Any]] = []
    training.resume(finished, on_event=events.append)
    assert events[0]["kind"] == "warning"
    assert "step-2 is damaged" in events[0]["text"]
    assert file in events[0]["text"]
    assert [event["step"] for event in events if event["kind"] == "step"] == [2]
    assert whole == {path.name: path.read_bytes() for path in (finished / "checkpoints" / "step-2").iterdir() if path.is_file()}


@pytest.mark.slow
def test_a_run_without_a_sound_checkpoint_is_one_line(finished: Path) -> None:
    for number in (1, 2):
        (finished / "checkpoints" / f"step-{number}" / "rng.json").write_text("")
    with pytest.raises(RunError, match="every checkpoint of .* is damaged: remove .*checkpoints and resume"):
        training.resume(finished)
    shutil.rmtree(finished / "checkpoints")
    training.resume(finished)
    assert load_run(finished).directory.events.finished()


@pytest.mark.slow
def test_a_missing_irm_is_one_line(finished: Path) -> None:
    (finished / "irm.safetensors").unlink()
    with pytest.raises(RunError, match=r"irm\.safetensors is missing"):
        load_run(finished)


def test_a_start_that_fails_leaves_nothing_behind(llama_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(IrmLiteError):
        training.train(quick(llama_folder, optim="galore_adamw"), tmp_path / "run")
    with pytest.raises(InputError):
        training.train(quick(llama_folder, optim="no-such-optimiser"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_vector_arguments_mean_what_they_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "odd:2").write_text("")
    assert parse_vector_argument("odd:2") == (Path("odd:2"), 1.0)
    assert parse_vector_argument("v.gguf:1_0") == (Path("v.gguf:1_0"), 1.0)
    assert parse_vector_argument("v.gguf:-.5") == (Path("v.gguf"), -0.5)
    for bad in ("v.gguf:1e300", "v.gguf:nan", ""):
        with pytest.raises(VectorError):
            parse_vector_argument(bad)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are a POSIX thing")
def test_a_pipe_is_not_waited_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(tmp_path / "pipe.jsonl")
    assert cli.run(["train", "--data", str(tmp_path / "pipe.jsonl")]) == 2
    assert cli.run(["generate", "-p", "x", "--gguf", str(tmp_path / "pipe.jsonl")]) == 2
    assert capsys.readouterr().err.count("not an ordinary file") == 2


@pytest.mark.slow
def test_odd_arguments_are_one_line_and_exit_2(capsys: pytest.CaptureFixture[str], llama_gguf: Path, finished: Path) -> None:
    generate = ["generate", "--gguf", str(llama_gguf), "-p", "x"]
    for arguments in (
        ["trian"],
        ["train", "--data", "x" * 300 + ".jsonl"],
        ["train", "--out", ""],
        ["train", "--seed", "1099511627776"],
        ["train", "--rank", "1000000000"],
        ["train", "--data", "hf:"],
        [*generate, "--max-new-tokens", "-1"],
        [*generate, "--temperature", "nan"],
        [*generate, "--context", "1"],
        [*generate, "--vector", "v.gguf:1e300"],
        ["generate", "--gguf", str(llama_gguf), "-p", "a\udcff"],
        ["export", str(finished), "--epochs", "inf"],
        ["export", str(finished), "-o", "/proc/x/v.gguf"],
        ["eval", str(finished), "--vector", "absent.gguf"],
    ):
        code = cli.run(arguments)
        complaint = capsys.readouterr().err
        lines = [line for line in complaint.splitlines() if line.startswith("irm-lite: ")]
        assert (code, len(lines)) == (2, 1), (arguments, complaint)
        assert "unexpected" not in complaint
        assert len(lines[0]) < 600


@pytest.mark.slow
def test_a_closed_pipe_and_a_full_disk_are_no_bugs_of_ours() -> None:
    command = f"{sys.executable} -m irm_lite models list"
    closed = subprocess.run(
        ["bash", "-c", f"{command} | true; exit ${{PIPESTATUS[0]}}"], capture_output=True, text=True, check=False
    )
    assert closed.returncode in (0, 141), closed.stderr
    if Path("/dev/full").exists():
        full = subprocess.run(["bash", "-c", f"{command} > /dev/full"], capture_output=True, text=True, check=False)
        assert full.returncode == 1
        assert "unexpected" not in full.stderr
        assert full.stderr.count("irm-lite: ") == 1


def test_models_list_shows_whole_names_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["models", "list"]) == 0
    shown = capsys.readouterr().out
    for name in ("llama-2-13b-chat", "tinyllama-1.1b", "qwen2.5-1.5b"):
        assert name in shown


@pytest.mark.slow
def test_an_export_elsewhere_leaves_the_runs_own_figure(finished: Path, tmp_path: Path) -> None:
    from irm_lite.vectors.export import export_vector

    run = load_run(finished)
    export_vector(run, run.directory.default_vector, method="mean")
    before = run.directory.fidelity.read_text()
    export_vector(run, tmp_path / "elsewhere.gguf", method="mean", layers="1")
    assert run.directory.fidelity.read_text() == before


def test_divergence_is_named(llama_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("irm_lite.training.step.injected_model.InjectedModel.nll", lambda *_: float("nan"))
    with pytest.raises(IrmLiteError, match="--learning-rate"):
        training.train(quick(llama_folder), tmp_path / "run")
    assert torch.is_grad_enabled()


def test_a_base_that_computes_nothing_finite_is_said(llama_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(llama_folder, tmp_path / "nan")
    weights = load_file(tmp_path / "nan" / "model.safetensors")
    weights["model.norm.weight"].fill_(float("nan"))
    save_file(weights, tmp_path / "nan" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(TrainingFailed, match="the base's NLL on the validation answers is nan: try --dtype float32"):
        training.train(quick(tmp_path / "nan"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_the_benchmark_of_tones_says_in_a_line_what_is_no_run(tmp_path: Path) -> None:
    program = Path(__file__).parents[2] / "benchmarks" / "tones.py"
    done = subprocess.run([sys.executable, program, tmp_path / "none"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"tones.py: {tmp_path / 'none'} is not a run directory")
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="the device that shall be missing is here")
def test_a_run_of_a_device_that_is_not_here_is_told_its_own_fix(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = (finished / "run.toml").read_text()
    (finished / "run.toml").write_text(settings.replace('device = "cpu"', 'device = "cuda"'))
    assert cli.run(["train", "--resume", str(finished)]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "this run was trained on cuda, which is not available here" in said
    assert f'set device = "auto" in {finished}/run.toml' in said
    (finished / "run.toml").write_text(settings.replace('device = "cpu"', 'device = "auto"'))
    assert cli.run(["train", "--resume", str(finished)]) == 0
