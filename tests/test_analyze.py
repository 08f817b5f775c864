"""analyze: the document of several runs, its findings in words, and what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from irm_lite import train
from irm_lite.analysis.report.findings import FAILS, HOLDS, UNCLEAR, findings
from irm_lite.analyze import Recorded, analyze, nlls, with_recordings
from irm_lite.cli.main import run as command
from irm_lite.config import TrainConfig
from irm_lite.errors import InputError, RunError
from irm_lite.presets import presets
from irm_lite.record import record
from irm_lite.trained import TrainedRun
from tiny_models import write_hf_folder


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
def recorded(runs: list[TrainedRun]) -> list[Recorded]:
    return with_recordings([run.directory.path for run in runs])


def test_the_document_holds_what_the_recordings_do(recorded: list[Recorded]) -> None:
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
        assert set(run["explanation"]["features"]) >= {"residual RMS", "gradient of the base", "head norm x final gain"}
        assert run["lens"][0]["layer"] == 0
        assert run["nll"]["base"] > 0
    assert len(document["across"]["pairs"]) == 6
    assert set(document["across"]["common_by_data"]) == {"anger", "neutral", "all but neutral"}
    assert set(document["gradient_field"]) == {"anger (attn)", "neutral (attn)", "anger, shuffled (attn)"}
    assert {finding["verdict"] for finding in document["findings"]} <= {HOLDS, FAILS, UNCLEAR}


def test_the_best_nll_is_read_from_the_events(runs: list[TrainedRun]) -> None:
    evaluated = [event for event in runs[0].directory.events() if event["kind"] == "eval"]
    found = nlls(runs[0].directory)
    assert found["base"] == evaluated[0]["nll"]
    assert found["irm"] == min(event["nll"] for event in evaluated[1:])


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
    assert (tmp_path / "report" / "report.html").is_file()


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


def test_a_mark_out_of_range_is_refused(recorded: list[Recorded]) -> None:
    with pytest.raises(InputError, match="there is no index 64: the hidden size is 64"):
        analyze(recorded, marks=[64])


def entry(name: str, data: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "data": data, "ablations": [], "marked": [], **more}


def with_common(emotional: list[int], neutral: list[int]) -> dict[str, Any]:
    groups = {"all but neutral": {"indices": emotional}, "neutral": {"indices": neutral}}
    pair = {"spearman": 0.5, "overlap": 4, "expected": 0.7}
    common = {"indices": emotional, "worst_rank": [3.0] * len(emotional)}
    across = {"names": ["a", "b"], "k": 20, "pairs": [pair], "common": common, "common_by_data": groups}
    return {"base": {"hidden_size": 576}, "runs": [entry("a", "anger"), entry("b", "neutral")], "across": across}


@pytest.mark.parametrize(
    ("emotional", "neutral", "verdict", "said"),
    [
        ([1512], [1512], FAILS, "none is common only with emotion"),
        ([1512], [3], HOLDS, "only with emotion: 1512"),
        ([1512, 7], [7], UNCLEAR, "1 are common to the neutral runs too (7); only with emotion: 1512"),
        ([], [7], FAILS, "No index is common to the runs that were trained on an emotion"),
    ],
)
def test_what_neutral_runs_share_is_no_emotion(emotional: list[int], neutral: list[int], verdict: str, said: str) -> None:
    finding = next(each for each in findings(with_common(emotional, neutral)) if "emotion" in each["claim"])
    assert finding["verdict"] == verdict
    assert said in finding["text"]


@pytest.mark.parametrize(("ranks", "verdict"), [([1, 10], HOLDS), ([1, 11], UNCLEAR), ([11, 500], FAILS)])
def test_a_marked_index_stands_out_where_it_does(ranks: list[int], verdict: str) -> None:
    document = with_common([], [])
    for run, rank in zip(document["runs"], ranks, strict=True):
        run["marked"] = [{"index": 1512, "importance": 1.0, "rank": rank}]
    finding = next(each for each in findings(document) if "1512" in each["claim"])
    assert finding["verdict"] == verdict
