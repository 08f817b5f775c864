"""A training begins only where llama.cpp takes the base's file and makes the same model of it, or where the user says so."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from irm_lite.base.presets import presets
from irm_lite.cli import main as cli
from irm_lite.config import TrainConfig
from irm_lite.core.errors import BaseModelError, Interrupted
from irm_lite.core.files.gguf_header import read_header
from irm_lite.llamacpp import agreement
from irm_lite.runs.directory import RunDirectory
from irm_lite.training import train as training
from irm_lite.training.setup import prepare
from support.both_runtimes import HIDDEN
from support.disagreeing import disagree
from support.tiny_models import write_gguf


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("IRM_LITE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def not_for_llamacpp(llama_folder: Path, tmp_path: Path) -> Path:
    """A file with a tensor of a block that it does not have: transformers leaves it out, llama.cpp refuses the file."""
    template = presets()["llama-2-7b-chat"].chat_template
    extra = {"blk.3.attn_norm.weight": np.ones(HIDDEN, np.float32)}
    return write_gguf(llama_folder, tmp_path / "one-more.gguf", template, extra=extra)


def config(model: Path, **changes: Any) -> TrainConfig:
    settings: dict[str, Any] = {"model": str(model), "quant": "none", "dtype": "float32", "device": "cpu", "irm": "static"}
    return TrainConfig(**{**settings, "max_steps": 3, "batch_size": 4, "eval_steps": 3, "sample_tokens": 0, **changes})


def warnings(run: Path) -> list[dict[str, Any]]:
    return [event for event in RunDirectory(run).events.read() if event["kind"] == "warning"]


@pytest.mark.slow
def test_a_sound_file_is_trained_on_without_a_word(llama_gguf: Path, tmp_path: Path) -> None:
    training.train(config(llama_gguf), tmp_path / "run")
    assert warnings(tmp_path / "run") == []
    assert "graph" in json.loads((tmp_path / "run" / "base.json").read_text())


@pytest.mark.slow
def test_another_model_is_told_before_the_first_step(llama_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disagree(monkeypatch, 1.5)
    training.train(config(llama_gguf), tmp_path / "run")
    kinds = [event["kind"] for event in RunDirectory(tmp_path / "run").events.read()]
    assert kinds.index("warning") < kinds.index("step")
    (told,) = warnings(tmp_path / "run")
    assert told["of"] == "runtimes"
    assert "as two models" in told["text"]


@pytest.mark.slow
def test_quite_another_model_is_refused_and_nothing_is_written(
    llama_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    disagree(monkeypatch, 30)
    arguments = ["train", "--model", str(llama_gguf), "--quant", "none", "--device", "cpu", "--irm", "static", "--max-steps", "2"]
    arguments += ["--sample-tokens", "0", "--out", str(tmp_path / "run")]
    assert cli.run(arguments) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("irm-lite: ")]
    assert "KL " in line
    assert line.endswith("say --allow-disagreement to go on all the same")
    assert not (tmp_path / "run").exists()
    assert cli.run([*arguments, "--allow-disagreement"]) == 0
    assert "irm-lite: warning: transformers and llama.cpp run tiny.gguf as two models" in capsys.readouterr().err
    assert RunDirectory(tmp_path / "run").config().allow_disagreement


@pytest.mark.slow
def test_what_has_begun_may_go_on(llama_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_cache: Path) -> None:
    """A run of before the comparison, or of another llama.cpp, is never refused when it is resumed."""
    steps: list[object] = []
    with pytest.raises(Interrupted):
        training.train(config(llama_gguf), tmp_path / "run", on_event=steps.append, should_stop=lambda: "step" in str(steps))
    disagree(monkeypatch, 30)
    (own_cache / "agreement.json").unlink()
    training.resume(tmp_path / "run")
    assert ["as two models" in event["text"] for event in warnings(tmp_path / "run")] == [True]


def test_a_file_that_llamacpp_cannot_load_is_refused_before_the_base_is_loaded(
    not_for_llamacpp: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare, "load_base_of", lambda _: pytest.fail("loaded"))
    with pytest.raises(BaseModelError, match=r"llama\.cpp cannot load .*wrong number of tensors.*--allow-disagreement") as caught:
        training.train(config(not_for_llamacpp), tmp_path / "run")
    assert caught.value.exit_code == 2
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_it_is_trained_on_where_the_user_says_so(not_for_llamacpp: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agreement, "agreement", lambda *_: pytest.fail("compared"))
    training.train(config(not_for_llamacpp, allow_disagreement=True), tmp_path / "run")
    (told,) = warnings(tmp_path / "run")
    assert "wrong number of tensors" in told["text"]
    assert "--allow" not in told["text"]


@pytest.mark.slow
def test_keys_that_nobody_knows_are_told(llama_folder: Path, tmp_path: Path) -> None:
    template = presets()["llama-2-7b-chat"].chat_template
    gguf = write_gguf(llama_folder, tmp_path / "a.gguf", template, keys={"llama.of_tomorrow": 7})
    training.train(config(gguf), tmp_path / "run")
    assert [event["text"] for event in warnings(tmp_path / "run")] == [
        "a.gguf has keys that irm-lite does not know: llama.of_tomorrow"
    ]


@pytest.mark.slow
@pytest.mark.parametrize("resumed", [False, True])
def test_another_graph_in_the_place_of_the_base_is_told(resumed: bool, llama_folder: Path, tmp_path: Path) -> None:
    """A run that is resumed, or exported, on a file of the same weights that are rotated otherwise."""
    template = presets()["llama-2-7b-chat"].chat_template
    gguf = write_gguf(llama_folder, tmp_path / "a.gguf", template)
    steps: list[object] = []
    with pytest.raises(Interrupted):
        training.train(config(gguf), tmp_path / "run", on_event=steps.append, should_stop=lambda: "step" in str(steps))
    if not resumed:  # as an irm-lite of before kept it
        base = json.loads((tmp_path / "run" / "base.json").read_text())
        del base["graph"]
        (tmp_path / "run" / "base.json").write_text(json.dumps(base))
    write_gguf(llama_folder, tmp_path / "b.gguf", template, keys={"llama.rope.scaling.factor": 4.0}).replace(gguf)
    assert read_header(gguf).metadata["llama.rope.scaling.factor"] == 4.0
    training.resume(tmp_path / "run")
    told = [event["text"] for event in warnings(tmp_path / "run")]
    assert ["the same weights with other settings" in text for text in told] == [True] * resumed
