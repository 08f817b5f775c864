"""The score of runs on a tiny model, in both runtimes, and what is said where it cannot be taken."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from irm_lite.base.fingerprint import fingerprint_gguf
from irm_lite.cli.tables import score_lines, score_shown
from irm_lite.config import TrainConfig
from irm_lite.core.errors import InputError
from irm_lite.data.dataset import load_dataset
from irm_lite.runs.directory import RunDirectory
from irm_lite.runs.trained import TrainedRun
from irm_lite.scoring.material import Extent
from irm_lite.scoring.parts import PARTS
from irm_lite.steering.control_vector import ControlVector
from irm_lite.steering.irm import IRM, build_irm
from irm_lite.vectors.evaluation import Evaluation, evaluate_run
from irm_lite.vectors.export import export_vector
from irm_lite.vectors.fidelity.steerings import STEERINGS, Steering
from irm_lite.vectors.scored import hear_in_transformers, material_of, score_export, scores_of

FEW = Extent(questions=3, new_tokens=8)


def angry_irm() -> IRM:
    irm = build_irm("static", 64, (1, 2), "block")
    torch.nn.init.normal_(next(irm.parameters()), std=0.5, generator=torch.Generator().manual_seed(0))
    return irm


def the_same(irm: IRM) -> ControlVector:
    values = next(irm.parameters()).detach().numpy()
    return ControlVector({1: values[0], 2: values[1]}, "llama")


@pytest.fixture
def run(llama_gguf: Path, tmp_path: Path) -> TrainedRun:
    return run_on(llama_gguf, tmp_path, "anger")


def run_on(model: Path, folder: Path, data: str) -> TrainedRun:
    directory = RunDirectory(folder / "run")
    config = TrainConfig(irm="lite", model=str(model), data=data, quant="none", dtype="float32", device="cpu")
    with directory.lock.held():
        directory.create(config, fingerprint_gguf(model), {})
    return TrainedRun(directory, config, angry_irm(), directory.fingerprint())


def of_file(path: Path, llama_gguf: Path, rows: list[dict[str, Any]]) -> Evaluation:
    path.mkdir()
    (path / "mine.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    run = run_on(llama_gguf, path, str(path / "mine.jsonl"))
    return evaluate_run(run, the_same(run.irm), None, extent=FEW)


def shipped_rows(count: int) -> list[dict[str, Any]]:
    angry, plain = load_dataset("anger").train[:count], load_dataset("neutral").train[:count]
    splits = ("train", "validation", "test", "test", "train")
    return [
        {"question": each.question, "answer": each.answer, "neutral": other.answer, "split": splits[at % 5]}
        for at, (each, other) in enumerate(zip(angry, plain, strict=True))
    ]


@pytest.mark.slow
def test_irm_and_a_vector_that_is_the_same_have_the_same_score(run: TrainedRun) -> None:
    evaluation = evaluate_run(run, the_same(run.irm), None, extent=FEW)
    assert list(evaluation.scores) == ["base", "irm", "vector"]
    irm, vector = (evaluation.scores[name].figures for name in ("irm", "vector"))
    for name in ("preference", "margin", "choices", "ended", "looped"):  # texts may differ in a near tie
        assert irm[name] == pytest.approx(vector[name], abs=0.02), name
    assert vector["shift"] != 0
    document = evaluation.to_dict()["score"]
    assert set(document["vector"]["parts"]) == set(PARTS)
    assert document["vector"]["questions"] == {"text": 3, "pairs": 3, "choices": 12}
    assert evaluation.generations is not None
    assert len(evaluation.generations.texts["vector"]) == 3
    # The comparison has measured the same answers in its own way: tokens, then the NLL of base, IRM and vector.
    toned, plain = evaluation.aligned.sums[:3], evaluation.neutral.sums[:3]
    for column, name in enumerate(STEERINGS, 1):
        preference = (plain[:, column] / plain[:, 0] - toned[:, column] / toned[:, 0]).mean()
        assert evaluation.scores[name].figures["preference"] == pytest.approx(preference, abs=2e-3)


@pytest.mark.slow
def test_its_table_fits_into_eighty_columns(run: TrainedRun) -> None:
    said = Console(file=io.StringIO(), width=80)
    for line in score_shown(evaluate_run(run, the_same(run.irm), None, extent=FEW).scores):
        said.print(line)
    shown = said.file.getvalue()  # type: ignore[attr-defined]
    assert "\u2026" not in shown  # nothing is cut
    assert all(name in shown for name in (*PARTS, "perplexity, times", "IRM", "3 questions, 12 choices"))
    assert all(len(line) <= 80 for line in shown.splitlines())


@pytest.mark.slow
def test_transformers_and_llamacpp_agree_on_it(run: TrainedRun) -> None:
    vector, material = the_same(run.irm), material_of(run, FEW)
    there = evaluate_run(run, vector, None, extent=FEW).scores["vector"].figures
    steered: dict[Steering, Any] = {"base": None, "irm": run.irm, "vector": vector}
    figures = scores_of(hear_in_transformers(run, steered, material), material)["vector"].figures
    for name in ("preference", "base_preference", "shift", "shift_spread", "margin", "base_margin", "choices", "wrong_way"):
        assert figures[name] == pytest.approx(there[name], abs=5e-3), name


@pytest.mark.slow
def test_a_folder_is_scored_in_transformers(llama_folder: Path, run: TrainedRun, tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path / "other")
    config = TrainConfig(irm="lite", model=str(llama_folder), data="joy", quant="none", dtype="float32", device="cpu")
    with directory.lock.held():
        directory.create(config, run.fingerprint, {})
    found = evaluate_run(TrainedRun(directory, config, angry_irm(), run.fingerprint), the_same(run.irm), None, extent=FEW)
    assert found.gguf is None
    assert list(found.scores) == ["base", "irm", "vector"]
    assert found.generations is not None


@pytest.mark.slow
def test_no_questions_no_score(run: TrainedRun) -> None:
    evaluation = evaluate_run(run, the_same(run.irm), None, extent=Extent(0))
    assert (evaluation.scores, evaluation.generations, evaluation.to_dict()["score"]) == ({}, None, None)
    assert score_shown(evaluation.scores) == ()
    with pytest.raises(InputError, match="make no sense"):
        Extent(-1)


@pytest.mark.slow
def test_data_without_neutral_answers_are_scored_as_far_as_they_can_be(llama_gguf: Path, tmp_path: Path) -> None:
    rows = [{key: value for key, value in row.items() if key != "neutral"} for row in shipped_rows(10)]
    found = of_file(tmp_path / "bare", llama_gguf, rows).scores["vector"]
    assert found.value is None
    assert {"fluency", "sense", "choices", "ended"} <= set(found.figures)
    assert not {"tone", "steerability", "preference"} & set(found.figures)
    assert "no neutral answers" in score_lines(found)[0]
    assert "\n" not in score_lines(found)[0]
    assert found.to_dict()["value"] is None
    assert found.to_dict()["interval_95"] is None


@pytest.mark.slow
def test_ten_rows_are_scored_by_preference_and_it_is_said(llama_gguf: Path, tmp_path: Path) -> None:
    found = of_file(tmp_path / "ten", llama_gguf, shipped_rows(10)).scores["vector"]
    assert found.value is not None
    assert found.to_dict()["tone_by"] == "preference"
    assert any("tone by preference alone" in str(line) for line in score_shown({"vector": found}))


def test_texts_have_no_score_and_it_is_said(llama_gguf: Path, tmp_path: Path) -> None:
    rows = [{"text": row["answer"], "split": row["split"]} for row in shipped_rows(10)]
    evaluation = of_file(tmp_path / "texts", llama_gguf, rows)
    assert evaluation.generations is None
    assert evaluation.scores["vector"].value is None
    assert "ask no questions" in score_lines(evaluation.scores["vector"])[0]


@pytest.mark.slow
def test_an_export_keeps_its_score_beside_its_fidelity(run: TrainedRun, tmp_path: Path) -> None:
    result = export_vector(run, run.directory.default_vector)
    before = json.loads(run.directory.fidelity.read_text())
    scores, failed = score_export(run, result, FEW)
    assert failed is None
    after = json.loads(run.directory.fidelity.read_text())
    assert {key: value for key, value in after.items() if key != "score"} == before
    assert after["score"]["vector"]["value"] == pytest.approx(scores["vector"].value)
    assert after["score"]["base"]["parts"]["tone"] == 0
    elsewhere = export_vector(run, tmp_path / "v.gguf")
    score_export(run, elsewhere, FEW)
    assert json.loads(run.directory.fidelity.read_text()) == after  # the run's own is not touched
    assert score_export(run, elsewhere, Extent(0)) == ({}, None)
    assert np.isfinite(scores["vector"].figures["perplexity_ratio"])


@pytest.mark.slow
def test_a_score_that_fails_does_not_lose_the_export(run: TrainedRun) -> None:
    result = export_vector(run, run.directory.default_vector)
    scores, failed = score_export(run, result, Extent(questions=3, new_tokens=600))  # the model has a context of 512
    assert scores == {}
    assert failed is not None
    assert "do not fit into the context" in failed
    assert run.directory.default_vector.is_file()
