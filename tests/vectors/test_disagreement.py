"""Export, eval and calibrate tell where llama.cpp makes another model of the file, and refuse where it is quite another."""

import json
from pathlib import Path

import pytest

from irm_lite.cli import main as cli
from irm_lite.config import TrainConfig
from irm_lite.core.errors import BaseModelError
from irm_lite.runs.trained import TrainedRun, load_run
from irm_lite.scoring.material import Extent
from irm_lite.steering.control_vector import ControlVector
from irm_lite.training import train as training
from irm_lite.vectors.calibration import Grid, calibrate
from irm_lite.vectors.evaluation import evaluate_run
from irm_lite.vectors.export import export_vector
from support.disagreeing import disagree
from support.tiny_models import write_gguf


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IRM_LITE_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def trained(llama_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("disagreement")
    config = TrainConfig(
        model=str(llama_gguf), quant="none", device="cpu", irm="static", layers="1-2", max_steps=2, batch_size=4, sample_tokens=0
    )
    training.train(config, folder / "run")
    return folder / "run"


@pytest.fixture
def run(trained: Path) -> TrainedRun:
    return load_run(trained)


@pytest.mark.slow
def test_a_warning_stands_in_the_export_and_in_fidelity_json(run: TrainedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    disagree(monkeypatch, 1.5)
    result = export_vector(run, run.directory.default_vector)
    assert "as two models" in result.warnings[0]
    assert json.loads(run.directory.fidelity.read_text())["disagreement"] == result.warnings[0]


@pytest.mark.slow
def test_the_verbs_say_it_and_their_documents_hold_it(
    run: TrainedRun, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], llama_gguf: Path, tmp_path: Path
) -> None:
    disagree(monkeypatch, 1.5)
    path, vector = str(run.directory.path), str(run.directory.default_vector)
    verbs = [
        ["export", path, "--force"],
        ["eval", path, "--questions", "0"],
        ["calibrate", vector, "--gguf", str(llama_gguf), "--data", "anger", "--strengths", "1", "--layers", "1-2"],
        [
            "calibrate",
            vector,
            "--gguf",
            str(llama_gguf),
            "--data",
            "anger",
            "--strengths",
            "1",
            "--by",
            "score",
            "--questions",
            "1",
        ],
    ]
    for verb in verbs:
        assert cli.run([*verb, "--json"]) == 0
        captured = capsys.readouterr()
        assert f"irm-lite: warning: {json.loads(captured.out)['disagreement']}" in captured.err
        assert "as two models" in captured.err


@pytest.mark.slow
def test_without_a_disagreement_nothing_is_said(run: TrainedRun, llama_gguf: Path, tmp_path: Path) -> None:
    result = export_vector(run, tmp_path / "v.gguf")
    assert result.disagreement is None
    assert evaluate_run(run, result.vector, None, extent=Extent(questions=0)).to_dict()["disagreement"] is None
    assert calibrate(result.vector, llama_gguf, "anger", grid=Grid((1.0,), [(1, 2)])).disagreement is None


@pytest.mark.slow
def test_quite_another_model_is_refused_before_any_work(
    run: TrainedRun, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vector = export_vector(run, tmp_path / "v.gguf").vector
    monkeypatch.setenv("IRM_LITE_CACHE", str(tmp_path / "another"))
    disagree(monkeypatch, 30)
    measure = ["eval", str(run.directory.path), "--questions", "0", "--vector", str(tmp_path / "v.gguf")]
    for verb in (measure, ["export", str(run.directory.path), "-o", str(tmp_path / "w.gguf")]):
        assert cli.run(verb) == 2
        (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("irm-lite: ")]
        assert "KL " in line
        assert line.endswith("say --allow-disagreement to go on all the same")
        assert not (tmp_path / "w.gguf").exists()
        assert cli.run([*verb, "--allow-disagreement"]) == 0
        assert "irm-lite: warning: transformers and llama.cpp run tiny.gguf as two models" in capsys.readouterr().err
    with pytest.raises(BaseModelError, match="--allow-disagreement"):
        evaluate_run(run, vector, None, extent=Extent(questions=0))


@pytest.mark.slow
def test_what_was_allowed_in_training_is_allowed_on_that_file_alone(
    run: TrainedRun, monkeypatch: pytest.MonkeyPatch, llama_gguf: Path, llama_folder: Path, tmp_path: Path
) -> None:
    disagree(monkeypatch, 30)
    run.config.allow_disagreement = True
    assert "as two models" in (export_vector(run, tmp_path / "v.gguf").disagreement or "")
    other = write_gguf(llama_folder, tmp_path / "other.gguf", "{{ 1 }}")
    with pytest.raises(BaseModelError, match=r"other\.gguf as two models"):
        export_vector(run, tmp_path / "w.gguf", gguf=other)


def test_a_file_that_llamacpp_cannot_load_is_refused_before_the_vector_is_made(
    run: TrainedRun, llama_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("irm_lite.vectors.export._directions", lambda *_: pytest.fail("made"))
    broken = write_gguf(llama_folder, tmp_path / "broken.gguf", without=("blk.1.ffn_up.weight",))
    with pytest.raises(BaseModelError, match=r"cannot load .*broken\.gguf \(.*ffn_up"):
        export_vector(run, tmp_path / "v.gguf", gguf=broken, allow_disagreement=True)


@pytest.mark.slow
def test_a_vector_of_one_graph_on_another_is_told_once(
    run: TrainedRun, llama_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    export_vector(run, tmp_path / "v.gguf")
    assert ControlVector.load(tmp_path / "v.gguf").metadata["base.graph"] == run.fingerprint.graph
    scaled = write_gguf(llama_folder, tmp_path / "scaled.gguf", "{{ 1 }}", keys={"llama.rope.scaling.factor": 4.0})
    assert cli.run(["bake", str(tmp_path / "v.gguf"), "--gguf", str(scaled), "-o", str(tmp_path / "baked.gguf")]) == 0
    assert "the same weights with other settings than scaled.gguf has (rope)" in capsys.readouterr().err
    for verb in (["eval"], ["export", "--force", "-o", str(tmp_path / "w.gguf")]):  # in one line: the run, the vector and KL
        measure = [*verb, str(run.directory.path), "--gguf", str(scaled), "--questions", "0"]
        assert cli.run([*measure, *(["--vector", str(tmp_path / "v.gguf")] if verb == ["eval"] else [])]) == 0
        told = [line for line in capsys.readouterr().err.splitlines() if "other settings" in line or "as two models" in line]
        assert len(told) == 1
        assert (
            "than scaled.gguf has (rope): its effect may differ; transformers and llama.cpp run tiny.gguf and scaled.gguf"
            in told[0]
        )
