"""analyze: the document of several runs, its findings in words, and what is refused."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaForCausalLM

from irm_lite import train
from irm_lite.analysis.ablation_files import load_ablations, load_subsets
from irm_lite.analysis.analyze import analyze, nlls
from irm_lite.analysis.recordings.record import record
from irm_lite.analysis.recordings.run_recordings import RecordedRun, differences, with_recordings
from irm_lite.base.presets import presets
from irm_lite.cli.main import run as command
from irm_lite.config import TrainConfig
from irm_lite.core.errors import InputError, RunError
from irm_lite.runs.directory import RunDirectory
from irm_lite.runs.trained import TrainedRun
from support.tiny_models import write_hf_folder


def trained(base: Path, out: Path, **settings: Any) -> TrainedRun:
    config = TrainConfig(
        model=str(base), quant="none", dtype="float32", max_steps=2, sample_tokens=0, learning_rate=0.05, **settings
    )
    return train(config, out)


@pytest.fixture(scope="module")
def runs(llama_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[TrainedRun]:
    """Two tones at two seeds, recorded."""
    folder, found = tmp_path_factory.mktemp("runs"), []
    for data in ("anger", "neutral"):
        for seed in (0, 1):
            run = trained(llama_folder, folder / f"{data}-{seed}", data=data, seed=seed, irm="paper", layers="0-2")
            record(run, run.held_out_questions[:2], new_tokens=3, keep=1).save(run.directory.recordings / "held-out")
            found.append(run)
    return found


@pytest.fixture(scope="module")
def recorded(runs: list[TrainedRun]) -> list[RecordedRun]:
    return with_recordings([run.directory.path for run in runs])


@pytest.mark.slow
def test_the_document_holds_what_the_recordings_do(recorded: list[RecordedRun]) -> None:
    found = analyze(recorded, marks=[5], samples=4)
    document = json.loads(json.dumps(found.document, allow_nan=False))
    assert [run["name"] for run in document["runs"]] == ["anger-0", "anger-1", "neutral-0", "neutral-1"]
    for each, run in zip(recorded, document["runs"], strict=True):
        statistics = each.recording.statistics["generated"]
        np.testing.assert_allclose(found.heatmaps[each.name], statistics.mean, rtol=1e-6)
        scaled = statistics.mean_abs / statistics.mean_abs.mean(1, keepdims=True)
        order = np.argsort(-scaled.mean(0))
        assert [top["index"] for top in run["top"]] == order[:10].tolist()
        assert run["marked"] == [{"index": 5, "importance": pytest.approx(scaled.mean(0)[5]), "rank": order.tolist().index(5) + 1}]
        assert set(run["explanation"]["features"]) >= {"residual RMS", "gradient for neutral answers", "head norm x final gain"}
        assert run["lens"][0]["layer"] == 0
        assert run["nll"]["base"] > 0
    assert len(document["across"]["pairs"]) == 6
    assert set(document["across"]["common_by_data"]) == {"anger", "neutral"}
    assert document["across"]["tone"]["blocks"] == 1  # one setting, two tones
    assert set(document["across"]["agreement"]) == {"tone and setting", "setting"}
    assert set(document["gradient_field"]) == {"anger (attn)", "neutral (attn)", "anger, shuffled (attn)"}
    split = document["gradient_split"]
    assert set(split) == {"anger (attn)", "neutral (attn)"}
    assert next(each for each in split["anger (attn)"]["channels"] if each["index"] == 5)["why"][0] == "marked"
    assert sum(split["anger (attn)"]["total"].values()) == pytest.approx(1, abs=1e-6)
    for run, each in zip(document["runs"], recorded, strict=True):
        before, after = each.recording.untrained["generated"].mean, each.recording.statistics["generated"].mean
        power = np.vdot(before, before) * np.vdot(after, after)
        assert run["untrained"]["cosine"] == pytest.approx(np.vdot(before, after) / np.sqrt(power))
        assert run["field"]["values"]["index_share"] == pytest.approx(run["untrained"]["learned_two_way"]["index"])
        assert "the untrained IRM" in run["explanation"]["features"]


@pytest.mark.slow
def test_a_base_with_other_norms_is_told_of_in_one_line(recorded: list[RecordedRun], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("irm_lite.analysis.base_controls.denominators.is_rms_norm", lambda norm: False)
    document = analyze(recorded[:1], samples=2).document
    assert "gradient_split" not in document
    (note,) = document["notes"]
    assert "does not read its residual stream through RMSNorms" in note
    assert "\n" not in note


@pytest.mark.slow
def test_the_best_nll_is_read_from_the_events(runs: list[TrainedRun]) -> None:
    evaluated = [event for event in runs[0].directory.events.read() if event["kind"] == "eval"]
    found = nlls(runs[0].directory)
    assert found["base"] == evaluated[0]["nll"]
    assert found["irm"] == min(event["nll"] for event in evaluated[1:])


@pytest.mark.slow
def test_the_command_writes_report_with_ablations(
    runs: list[TrainedRun], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = (str(run.directory.path) for run in runs[:2])
    assert command(["ablate", one, "--index", "7", "--samples", "2", "--quiet"]) == 0
    capsys.readouterr()
    assert command(["analyze", one, other, "-o", str(tmp_path / "report"), "--samples", "3", "--json", "--quiet"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert {(each["index"], each["controls_kind"]) for each in document["runs"][0]["ablations"]} == {(7, "random"), (7, "matched")}
    assert any("Zeroing index 7" in finding["claim"] for finding in document["findings"])
    assert document["base"]["name"] == Path(runs[0].config.model).name
    for name in ("report.html", "report.json"):  # they are shown to others: no folder of this machine
        assert str(Path(runs[0].config.model).parent) not in (tmp_path / "report" / name).read_text()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["report.html", "report.json"])
def test_a_report_that_is_there_is_replaced_only_with_force(
    runs: list[TrainedRun], tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    (tmp_path / name).write_text("precious")
    arguments = ["analyze", *(str(run.directory.path) for run in runs[:2]), "-o", str(tmp_path), "--samples", "3", "--quiet"]
    assert command(arguments) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert command([*arguments[:1], "absent", *arguments[3:]]) == 2  # before the runs are looked at
    assert f"{name} exists: choose another -o, or say --force" in " ".join(capsys.readouterr().err.split())
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(name, "precious")]
    assert command([*arguments, "--force"]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"report.html", "report.json"}
    assert (tmp_path / name).read_text() != "precious"


@pytest.mark.slow
def test_a_run_of_another_base_or_without_recording_is_refused(runs: list[TrainedRun], tmp_path: Path) -> None:
    first = runs[0].directory.path
    with pytest.raises(RunError, match="has no recording"):
        with_recordings([trained(Path(runs[0].config.model), tmp_path / "bare").directory.path])
    template = presets()["llama-2-7b-chat"].chat_template
    other = trained(
        write_hf_folder(tmp_path / "other", layers=4, chat_template=template), tmp_path / "of-another", layers="0-2", irm="paper"
    )
    record(other, other.held_out_questions[:1], new_tokens=1, keep=0).save(other.directory.recordings / "held-out")
    with pytest.raises(InputError, match="are of different bases"):
        with_recordings([first, other.directory.path])
    with pytest.raises(InputError, match="same name"):
        with_recordings([first, first])


def test_a_recording_of_another_run_is_refused(runs: list[TrainedRun], tmp_path: Path) -> None:
    """Of the same shape, on the same base; copied, or left over from before the run was trained anew."""
    copied = tmp_path / runs[0].directory.path.name
    shutil.copytree(runs[0].directory.path, copied)
    shutil.rmtree(copied / "recordings")
    shutil.copytree(runs[1].directory.recordings, copied / "recordings")
    with pytest.raises(RunError, match="is a recording of another IRM: record again"):
        with_recordings([copied])
    file = copied / "recordings" / "held-out" / "recording.json"
    document = json.loads(file.read_text())
    document["base"]["weights"] = "0" * 64
    file.write_text(json.dumps(document))
    with pytest.raises(RunError, match="was recorded on another base"):
        with_recordings([copied])


@pytest.mark.slow
def test_what_was_measured_before_a_new_training_is_left_out(runs: list[TrainedRun], tmp_path: Path) -> None:
    one = tmp_path / "one"
    shutil.copytree(runs[2].directory.path, one)
    assert command(["ablate", str(one), "--index", "7", "--samples", "2", "--quiet"]) == 0
    assert load_ablations(RunDirectory(one))
    description = json.loads((one / "irm.json").read_text())
    (one / "irm.json").write_text(json.dumps({**description, "sha256": "1" * 64}))
    assert load_ablations(RunDirectory(one)) == []


@pytest.mark.slow
def test_a_killed_writers_file_is_passed_over_and_damage_is_told_before_the_work(
    runs: list[TrainedRun], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = tmp_path / "one"
    shutil.copytree(runs[2].directory.path, one)
    ablations = RunDirectory(one).ablations
    assert command(["ablate", str(one), "--index", "7", "--controls", "0", "--matched", "2", "--samples", "2", "--quiet"]) == 0
    whole = load_ablations(RunDirectory(one))
    shutil.copy(ablations / "7-irm.json", ablations / ".7-irm.deadbeef.json")
    (ablations / "._7-irm.json").write_bytes(b"\0\5\26\7")  # a Mac's, on a stick
    (ablations / ".set-keep-5.deadbeef.json").write_text("{")
    assert load_ablations(RunDirectory(one)) == whole
    assert load_subsets(RunDirectory(one)) == []
    (ablations / "8-irm.json").write_text("{")
    monkeypatch.setattr("irm_lite.analysis.analyze.load_run", lambda _path: pytest.fail("the base was loaded"))
    with pytest.raises(RunError, match="8-irm.json is damaged"):
        analyze(with_recordings([one]), samples=4)


@pytest.mark.slow
def test_a_base_whose_gains_are_all_one_is_explained_by_what_is_left(tmp_path: Path) -> None:
    folder = write_hf_folder(tmp_path / "base", chat_template=presets()["llama-2-7b-chat"].chat_template)
    model = LlamaForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" in name:
                weight.fill_(1)
    model.save_pretrained(folder)
    run = trained(folder, tmp_path / "run", irm="paper", layers="0-2")
    record(run, run.held_out_questions[:1], new_tokens=2, keep=0).save(run.directory.recordings / "held-out")
    found = analyze(with_recordings([run.directory.path]), samples=4).document["runs"][0]["explanation"]["features"]
    assert {"head norm", "embedding norm"} <= set(found)
    assert not {"final gain", "norm gain", "head norm x final gain"} & set(found)


def test_recordings_that_are_unlike_are_named(recorded: list[RecordedRun]) -> None:
    assert differences(recorded) == []
    about = replace(recorded[1].recording.about, n_prompts=9, measured_in="llama.cpp")
    other = replace(recorded[1], recording=replace(recorded[1].recording, about=about))
    assert differences([recorded[0], other]) == [
        "The recordings are of different numbers of prompts: 2, 9.",
        "The recordings were made in different programs: llama.cpp, transformers.",
    ]
    weights = [
        replace(each, recording=replace(each.recording, about=replace(each.recording.about, weights=f"/home/ann/{name}")))
        for each, name in zip(recorded, ("a/x.gguf", "b/x.gguf", "b/y.gguf"), strict=False)
    ]
    assert differences(weights) == ["The recordings were made on different weights: a/x.gguf, b/x.gguf, b/y.gguf."]
    assert differences(weights[1:]) == ["The recordings were made on different weights: x.gguf, y.gguf."]


@pytest.mark.slow
def test_an_answer_column_is_a_tone_of_its_own(llama_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two columns of one file, neither of them called answer."""
    rows = [
        {"question": f"What is {n} and {n}?", "wild": f"It is {2 * n}, you fool!", "calm": f"It is {2 * n}."} for n in range(12)
    ]
    file = tmp_path / "two.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for column in ("wild", "calm"):
        run = trained(llama_folder, tmp_path / column, data=str(file), answer_column=column, irm="paper", layers="0-2")
        record(run, run.held_out_questions[:2], new_tokens=3, keep=0).save(run.directory.recordings / "held-out")
    assert (
        command(
            [
                "analyze",
                *(str(tmp_path / each) for each in ("wild", "calm")),
                "-o",
                str(tmp_path / "o"),
                "--neutral",
                "calm",
                "--json",
            ]
        )
        == 0
    )
    document = json.loads(capsys.readouterr().out)
    assert [run["data"] for run in document["runs"]] == ["two.jsonl, wild", "two.jsonl, calm"]
    assert document["across"]["tone"]["blocks"] == 1
    fields = {name: each["two_way"]["index"] for name, each in document["gradient_field"].items()}
    tones = ("two.jsonl, wild", "two.jsonl, calm", "neutral", "two.jsonl, wild, shuffled")
    assert set(fields) == {f"{tone} (attn)" for tone in tones}
    assert len(set(fields.values())) == 4
    for path in (tmp_path / "o").iterdir():  # they are shown to others: no folder of this machine
        assert str(tmp_path) not in path.read_text()


def test_a_mark_out_of_range_is_refused(recorded: list[RecordedRun]) -> None:
    with pytest.raises(InputError, match="there is no index 64: the hidden size is 64"):
        analyze(recorded, marks=[64])
