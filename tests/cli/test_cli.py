"""The command line as its user meets it: in a fresh process, by exit code, stdout and stderr."""

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from irm_lite.cli import main as cli
from irm_lite.cli.app import app
from irm_lite.config import TrainConfig
from irm_lite.core.visible_text import safe
from irm_lite.runs.directory import RunDirectory
from irm_lite.steering.control_vector import ControlVector

QUICK = ["--device", "cpu", "--max-steps", "3", "--batch-size", "4", "--eval-steps", "3", "--rank", "4", "--sample-tokens", "0"]


def irm_lite(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        [sys.executable, "-m", "irm_lite", *arguments], capture_output=True, text=True, cwd=cwd, env=environment, check=False
    )


def complaint(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """The exit code and the one line of an error, in this process."""
    code = cli.run(list(arguments))
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = [line for line in captured.err.splitlines() if line.startswith("irm-lite: ")]
    assert len(lines) == 1, captured.err
    assert "Traceback" not in captured.err
    return code, lines[0]


def test_an_interruption_within_a_verb_is_told_and_is_no_success(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-c while a model was loaded, and the second one at any time, said nothing and gave 0: a script went on."""

    def interrupted(*_arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("irm_lite.analysis.recordings.run_recordings.with_recordings", interrupted)
    monkeypatch.setattr("irm_lite.base.channels.read_channels", interrupted)
    for arguments in (["analyze", "run", "-o", "report"], ["models", "inspect", "model"]):
        assert complaint(capsys, *arguments) == (130, "irm-lite: interrupted")


def test_bad_input_is_one_line_with_the_fix_and_exit_code_2(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, llama_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "gap.jsonl").write_text('{"question": "a?", "answer": "b"}\n{"question": "c?"}\n')
    (tmp_path / "half.gguf").write_bytes(b"GGUF\x03\x00\x00\x00")
    (tmp_path / "bad.toml").write_text("batch_sise = 4\n")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").write_text("x")
    model = ["--model", str(llama_folder)]
    cases = [
        (["train", "--model", "no-such-model"], "irm-lite models list"),
        (["train", "--model", "nobody/nothing"], "--download"),
        (["train", "--model", "llama-2-7b-chat"], "ask for access"),
        (["train", "--model", "half.gguf"], "not a whole GGUF"),
        (["train", *model, "--data", "rage"], "anger, joy, neutral, sadness"),
        (["train", *model, "--data", "missing.jsonl"], "no file missing.jsonl"),
        (["train", *model, "--data", "empty.jsonl"], "no samples"),
        (["train", *model, "--data", "gap.jsonl"], "line 2"),
        (["train", *model, "--layers", "0-99"], "0-2"),
        (["train", *model, "--layers", "one"], "odd, even, all"),
        (["train", *model, "--out", "taken"], "--resume"),
        (["train", "--config", "bad.toml"], "batch_sise"),
        (["train", "--config", "absent.toml"], "absent.toml"),
        (["train", "--batch-size", "0"], "--batch-size"),
        (["train", "--irm", "huge"], "paper"),
        (["train", "--no-such-flag"], "--no-such-flag"),
        (["train", "--resume", "nowhere"], "not a run directory"),
        (["train", "--resume", "nowhere", "--max-steps", "3"], "no other settings"),
        (["export", "nowhere"], "run.toml"),
        (["export", "nowhere", "--rank", "4"], "--as adapter"),
        (["eval", "nowhere"], "run.toml"),
        (["generate", "-p", "hi", "--gguf", "absent.gguf"], "absent.gguf"),
        (["generate", "-p", "", "--gguf", "absent.gguf"], "prompt is empty"),
        (["generate", "-p", "hi", "--vector", "absent.gguf:0.5"], "absent.gguf"),
        (["fly"], "fly"),
    ]
    before = sorted(path.name for path in tmp_path.iterdir())
    for arguments, hint in cases:
        code, line = complaint(capsys, *arguments)
        assert code == 2, (arguments, line)
        assert hint in line, (arguments, line)
    assert sorted(path.name for path in tmp_path.iterdir()) == before  # nothing written


@pytest.mark.slow
def test_a_run_is_gone_on_with_from_the_command_line(llama_folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    first = irm_lite("train", "--model", str(llama_folder), "--out", str(run), *QUICK, "--save-steps", "1")
    assert first.returncode == 0, first.stderr
    shutil.rmtree(run / "checkpoints" / "step-3")  # as if it had been killed in its last step
    second = irm_lite("train", "--resume", str(run), "--json")
    assert second.returncode == 0, second.stderr
    assert json.loads(second.stdout)["steps"] == 3
    assert [event["resumed_from"] for event in RunDirectory(run).events.read() if event["kind"] == "start"] == [None, "step-2"]


@pytest.mark.slow
def test_train_export_eval_generate_by_json(llama_gguf: Path, tmp_path: Path) -> None:
    trained = irm_lite("train", "--model", str(llama_gguf), "--out", "run", "--json", *QUICK, cwd=tmp_path)
    assert trained.returncode == 0, trained.stderr
    assert json.loads(trained.stdout)["run"] == "run"
    exported = irm_lite("export", "run", "-o", "v.gguf", "--method", "mean", "--json", cwd=tmp_path)
    assert exported.returncode == 0, exported.stderr
    again = irm_lite("export", "run", "-o", "v.gguf", cwd=tmp_path)
    assert (again.returncode, "--force" in again.stderr) == (2, True)
    evaluated = irm_lite("eval", "run", "--vector", "v.gguf", "--json", cwd=tmp_path)
    assert evaluated.returncode == 0, evaluated.stderr
    assert json.loads(evaluated.stdout)["fidelity"] == pytest.approx(json.loads(exported.stdout)["fidelity"], abs=1e-4)
    generated = irm_lite(
        "generate",
        "--gguf",
        str(llama_gguf),
        "--vector",
        "v.gguf:0.5",
        "-p",
        "Why?",
        "--max-new-tokens",
        "4",
        "--json",
        cwd=tmp_path,
    )
    assert generated.returncode == 0, generated.stderr
    assert json.loads(generated.stdout)["vectors"] == ["v.gguf:0.5"]


@pytest.mark.slow
def test_config_file_fills_what_the_flags_leave_open(
    llama_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "run.toml"
    file.write_text(
        f'model = "{llama_folder}"\nirm = "static"\nmax_steps = 9\nlayers = "1"\nbatch_size = 4\neval_steps = 2\n'
        'device = "cpu"\nsample_tokens = 0\ndouble_quant = true\nlearning_rate = 0.5\n'
    )
    code = cli.run(
        ["train", "--config", str(file), "--max-steps", "2", "--no-double-quant", "--out", str(tmp_path / "run"), "--quiet"]
    )
    assert code == 0, capsys.readouterr().err
    written = tomllib.loads((tmp_path / "run" / "run.toml").read_text())["train"]
    expected = {
        "model": str(llama_folder),
        "irm": "static",
        "max_steps": 2,
        "layers": "1",
        "batch_size": 4,
        "eval_steps": 2,
        "device": "cpu",
        "sample_tokens": 0,
        "learning_rate": 0.5,
        "double_quant": False,
    }
    assert {key: written[key] for key in expected} == expected
    resolved = {"optim": "adamw_torch", "save_steps": 2}  # what was left to choose is written as it was chosen
    assert {key: written[key] for key in resolved} == resolved
    assert written["dtype"] != "auto"
    again = cli.run(["train", "--config", str(tmp_path / "run" / "run.toml"), "--out", str(tmp_path / "second"), "--quiet"])
    assert again == 0, capsys.readouterr().err
    assert tomllib.loads((tmp_path / "second" / "run.toml").read_text())["train"] == written


def test_a_presets_settings_fill_what_flags_and_file_leave_open(tmp_path: Path) -> None:
    def settings(*flags: str) -> TrainConfig:
        _, bound, _ = app.parse_args(["train", *flags], exit_on_error=False, print_error=False)
        chosen = bound.arguments["settings"]
        assert isinstance(chosen, TrainConfig)
        return chosen

    large = settings("--model", "llama-2-13b-chat")
    assert (large.gradient_checkpointing, large.batch_size, large.gradient_accumulation_steps) == (True, 4, 2)
    mine = settings("--model", "llama-2-13b-chat", "--batch-size", "1", "--no-gradient-checkpointing")
    assert (mine.gradient_checkpointing, mine.batch_size, mine.gradient_accumulation_steps) == (False, 1, 2)
    (tmp_path / "c.toml").write_text('model = "llama-2-13b-chat"\nbatch_size = 3\n')
    from_file = settings("--config", str(tmp_path / "c.toml"))
    assert (from_file.model, from_file.batch_size, from_file.gradient_checkpointing) == ("llama-2-13b-chat", 3, True)


def test_every_verb_has_help_and_the_three_common_flags(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["--help"]) == 0
    overview = capsys.readouterr().out
    for verb in (["train"], ["demo"], ["export"], ["eval"], ["generate"], ["doctor"], ["models", "list"]):
        assert verb[0] in overview
        assert cli.run([*verb, "--help"]) == 0
        text = capsys.readouterr().out
        assert all(flag in text for flag in ("--json", "--quiet", "--debug")), verb


def test_models_list_knows_where_the_demo_is(demo_gguf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["models", "list", "--json"]) == 0
    models = {each["name"]: each for each in json.loads(capsys.readouterr().out)["models"]}
    assert models["demo"]["found_at"] == str(demo_gguf)
    assert models["llama-2-7b-chat"]["gated"] is True


def test_doctor_finds_this_machine_fit(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["doctor", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["ok"] is True
    checks = {check["name"]: check for check in document["checks"]}
    assert checks["NF4 forward and backward"]["ok"]
    assert checks["model demo"]["ok"]


def test_debug_adds_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["export", "nowhere", "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_text_from_files_cannot_act_on_the_terminal(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert safe("a\x1b[31mb\x07\x9bc\n\td") == "a\ufffd[31mb\ufffd\ufffdc\n    d"
    evil = tmp_path / "x\x1b]0;owned\x07.jsonl"
    _, line = complaint(capsys, "train", "--data", str(evil))
    assert "\x1b" not in line
    assert "\x07" not in line


def test_vector_of_another_model_is_refused_by_generate(
    demo_gguf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import numpy as np

    ControlVector({1: np.ones(64, np.float32)}, "llama").save(tmp_path / "v.gguf")
    code, line = complaint(capsys, "generate", "-p", "hi", "--gguf", str(demo_gguf), "--vector", str(tmp_path / "v.gguf"))
    assert code == 2
    assert "use it with the model it was trained on" in line
