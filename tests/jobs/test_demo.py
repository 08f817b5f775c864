"""The whole job: on a tiny model through the command line, and in short on the demo model."""

import json
import sys
from pathlib import Path

import pytest

from irm_lite.cli import main as cli
from irm_lite.config import TrainConfig
from irm_lite.core.errors import InputError
from irm_lite.data.dataset import load_dataset
from irm_lite.data.encoding import encode_all
from irm_lite.jobs import demo as jobs_demo
from irm_lite.jobs.demo import ask_shipped, demo_settings
from irm_lite.llamacpp import Runtime
from irm_lite.llamacpp.likelihood import context_for, llamacpp_nll
from irm_lite.steering.control_vector import ControlVector
from irm_lite.steering.injection import inject
from irm_lite.training import train as training
from irm_lite.training.nll import mean_nll
from irm_lite.vectors.export import export_vector
from irm_lite.vectors.fidelity.in_transformers import compare

QUICK = [
    "--device",
    "cpu",
    "--max-steps",
    "12",
    "--eval-steps",
    "12",
    "--rank",
    "4",
    "--sample-tokens",
    "4",
    "--learning-rate",
    "0.06",
]


@pytest.mark.slow
def test_demo_prints_its_document(
    llama_gguf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs_demo, "ask_shipped", lambda *_: pytest.fail("it was told to begin with the training"))
    out = tmp_path / "run"
    settings = ["--model", str(llama_gguf), "--data", "joy", "--irm", "lite", *QUICK]
    code = cli.run(["demo", "--no-first-answer", *settings, "--out", str(out), "--json", "--quiet"])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    document = json.loads(captured.out)
    assert document.keys() == {"run", "vector", "gguf", "heatmap", "nll", "fidelity", "score", "seconds", "shipped"}
    assert document["shipped"] is None
    assert document["nll"].keys() == {"base", "irm", "vector"}
    assert document["seconds"].keys() == {"train", "export", "generate", "score"}
    assert document["gguf"] == str(llama_gguf)
    assert document["nll"]["vector"] < document["nll"]["base"] - 0.2
    assert Path(document["heatmap"]).read_bytes().startswith(b"\x89PNG")
    assert ControlVector.load(document["vector"]).metadata["fidelity"] == pytest.approx(document["fidelity"], rel=1e-6)


@pytest.mark.slow
def test_demo_shows_people_text_numbers_and_picture(
    llama_gguf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    code = cli.run(
        [
            "demo",
            "--model",
            str(llama_gguf),
            "--irm",
            "static",
            "--site",
            "block",
            "--layers",
            "1-2",
            "--out",
            str(tmp_path / "run"),
            *QUICK,
        ]
    )
    shown = capsys.readouterr().out
    assert code == 0
    assert "Is yawning a reflex" in shown
    assert "fidelity 1.000 (1.000 to 1.000)" in shown  # a static IRM at site block is exported exactly
    assert shown.count("\u2580") == 64  # a line of half blocks: two layers, 64 neurons
    assert f"llama-cli -m {llama_gguf} --control-vector {tmp_path / 'run' / 'export' / 'vector.gguf'}" in shown


@pytest.mark.demo
def test_a_short_training_on_the_demo_model_reaches_llamacpp(demo_gguf: Path, tmp_path: Path) -> None:
    """On as many of the shipped samples as it sees."""
    shipped, steps = load_dataset("anger"), 8
    parts = {"train": shipped.train[: 8 * steps], "validation": shipped.validation[:12], "test": shipped.test[:12]}
    rows = [{"question": each.question, "answer": each.answer, "split": split} for split, part in parts.items() for each in part]
    data = tmp_path / "few.jsonl"
    data.write_text("\n".join(map(json.dumps, rows)))
    settings = TrainConfig(
        model="demo",
        data=str(data),
        batch_size=8,
        max_steps=steps,
        eval_steps=8,
        learning_rate=3e-3,
        sample_tokens=0,
        layers="8-29",
    )
    run = training.train(settings, tmp_path / "run")
    samples, _ = encode_all(run.base.tokenizer, run.dataset.test, settings.max_length)
    plain = mean_nll(run.base, samples)
    with inject(run.base.model, run.irm):
        assert mean_nll(run.base, samples) < plain - 0.5
    result = export_vector(run, tmp_path / "v.gguf", method="mean", layers="8-29")
    comparison = compare(run.base, run.irm, result.vector, samples)
    with Runtime(demo_gguf, n_ctx=context_for(samples)) as runtime:
        base = llamacpp_nll(runtime, samples)
        runtime.set_vector(result.vector)
        steered = llamacpp_nll(runtime, samples)
    # Q4_1 in llama.cpp against NF4 of it in transformers: other numbers, the same effect
    assert steered - base == pytest.approx(comparison.nll_vector - comparison.nll_base, abs=0.25)


def test_a_demo_is_short_unless_it_is_asked_to_be_long() -> None:
    """The demo preset's four epochs are for `train`; the user's own stay."""
    of_preset = TrainConfig(num_train_epochs=4.0)
    assert demo_settings(of_preset).num_train_epochs == 3.0
    assert demo_settings(of_preset, long=True) == of_preset
    own = TrainConfig(num_train_epochs=5.0, eval_steps=7)
    assert demo_settings(own) == own


def test_a_kind_that_no_vector_carries_is_no_demo() -> None:
    with pytest.raises(InputError, match="carries a lora in part only: .* export --as adapter"):
        demo_settings(TrainConfig(irm="lora"))


def test_a_shipped_vector_answers_before_anything_is_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked in processes of their own, which a stand-in plays: it says what it was asked by."""
    (tmp_path / "stand_in.py").write_text("import json, sys; print(json.dumps({'text': ' '.join(sys.argv[1:])}))")
    monkeypatch.setattr(jobs_demo, "run_module", lambda _name: [sys.executable, str(tmp_path / "stand_in.py")])
    found = ask_shipped(TrainConfig(model="demo", data="anger"))
    assert found is not None
    assert found.answers.question == found.vector.question
    assert found.answers.steered.removeprefix(found.answers.base) == " --vector demo-anger"
    assert "generate --json --quiet --gguf demo -p Is yawning a reflex" in found.answers.base
    for config in (TrainConfig(model="demo", data="joy"), TrainConfig(model="m.gguf", data="anger")):
        assert ask_shipped(config) is None
    (tmp_path / "stand_in.py").write_text("import sys; sys.exit(1)")
    assert ask_shipped(TrainConfig(model="demo", data="anger")) is None  # the demo itself tells why


@pytest.mark.demo
def test_the_shipped_vector_answers_otherwise_than_the_demo_model() -> None:
    found = ask_shipped(TrainConfig())
    assert found is not None
    assert "reflex" in found.answers.steered
    assert found.answers.steered != found.answers.base
