"""The findings' words and verdicts, over documents that the real statistics make of planted runs and of noise."""

from typing import Any

import numpy as np
import pytest

from irm_lite.analysis.analyze import across
from irm_lite.analysis.report.findings import findings
from irm_lite.analysis.report.verdicts import FAILS, HOLDS, UNCLEAR
from irm_lite.analysis.statistics.explanation import explain
from irm_lite.analysis.statistics.field_control import against_field
from irm_lite.analysis.statistics.prominence import prominent
from irm_lite.analysis.statistics.ranking import importance
from irm_lite.analysis.statistics.striations import layer_normalised, striation_test
from irm_lite.core.types import DoubleArray

WIDTH, LAYERS, SEEDS = 60, 5, 12
TONES, SETTINGS = ("anger", "sadness", "neutral"), ("a", "b", "c", "d", "e")
RUNS = [(f"{tone}-{setting}", tone, setting, tone == "neutral") for setting in SETTINGS for tone in TONES]


def noise(generator: np.random.Generator) -> list[DoubleArray]:
    return [generator.standard_normal((LAYERS, WIDTH)) for _ in RUNS]


def document(outputs: list[DoubleArray], field: DoubleArray, feature: DoubleArray | None = None) -> dict[str, Any]:
    """What `analyze` would make of these mean outputs, a gradient field and one feature of the base."""
    ranks = [importance(np.abs(values)) for values in outputs]
    generator = np.random.default_rng(0)
    runs = [
        {
            "name": name,
            "data": tone,
            "marked": [],
            "ablations": [],
            "striation_test": striation_test(layer_normalised(values), 400).to_dict(),
            "field": against_field(values, field, 60, 60).to_dict(),
            "prominent": prominent(values, 60).to_dict(),
            "field_prominent": prominent(field, 60).to_dict(),
            "explanation": explain(rank, {"x": generator.standard_normal(WIDTH) if feature is None else feature}, 20).to_dict(),
        }
        for (name, tone, *_), values, rank in zip(RUNS, outputs, ranks, strict=True)
    ]
    return {"base": {"hidden_size": WIDTH}, "runs": runs, "across": across(RUNS, np.array(ranks), 6)}


def verdicts(found: dict[str, Any]) -> dict[str, str]:
    """By the first words of the claim."""
    return {" ".join(each["claim"].split()[:3]): each["verdict"] for each in findings(found)}


@pytest.mark.slow
def test_of_noise_nothing_holds() -> None:
    """Each claim about all runs is familywise: noise may pass one of them in one document in twenty."""
    held: list[str] = []
    for seed in range(SEEDS):
        generator = np.random.default_rng(seed)
        found = verdicts(document(noise(generator), generator.standard_normal((LAYERS, WIDTH))))
        assert len(found) == 5
        held += [claim for claim, verdict in found.items() if verdict != FAILS]
    assert all(held.count(claim) <= 3 for claim in held)  # binomial: more of 12 at 5% is 1 in 500
    assert HOLDS not in held


@pytest.mark.slow
def test_planted_truth_is_told() -> None:
    for seed in range(4):
        generator = np.random.default_rng(seed)
        field = generator.standard_normal((LAYERS, WIDTH))
        outputs = [values + 2 * generator.standard_normal(WIDTH) for values in noise(generator)]  # striated, each its own way
        for (_, tone, *_), values in zip(RUNS, outputs, strict=True):
            values[:, 11] = 20  # in every run
            values[:, 22] = 15 if tone != "neutral" else 0  # with an emotion alone
        told = {" ".join(each["claim"].split()[:3]): each for each in findings(document(outputs, field))}
        assert told["The outputs are"]["verdict"] == HOLDS
        assert f"In {len(RUNS)} of {len(RUNS)} runs" in told["The outputs are"]["text"]
        assert told["In these runs"]["verdict"] == HOLDS  # the field is noise
        assert told["An index is"]["verdict"] == HOLDS
        assert f"11 ({len(RUNS)} of {len(RUNS)}, worst rank 1)" in told["An index is"]["text"]
        assert told["Some indices serve"]["verdict"] == HOLDS
        assert "22 (+0." in told["Some indices serve"]["text"]
        assert "11 (" not in told["Some indices serve"]["text"]
        assert told["What is known"]["verdict"] == FAILS


def test_what_the_field_has_already_training_did_not_add() -> None:
    generator = np.random.default_rng(5)
    common = generator.standard_normal(WIDTH)
    field = 3 * common + generator.standard_normal((LAYERS, WIDTH))
    outputs = [common + values for values in noise(generator)]
    found = verdicts(document(outputs, field, feature=np.abs(common)))
    assert found["The outputs are"] == HOLDS
    assert found["In these runs"] == FAILS
    assert found["What is known"] in (HOLDS, UNCLEAR)


@pytest.mark.parametrize(("ranks", "verdict"), [([1, 10], HOLDS), ([1, 11], UNCLEAR), ([11, 500], FAILS)])
def test_a_marked_index_stands_out_where_it_does(ranks: list[int], verdict: str) -> None:
    runs = [
        {
            "name": str(rank),
            "ablations": [],
            "marked": [{"index": 15, "importance": 1.0, "rank": rank}],
            "prominent": {"indices": [15] if rank == 1 else []},
            "field_prominent": {"indices": [15]},
        }
        for rank in ranks
    ]
    finding = findings({"base": {"hidden_size": 576}, "runs": runs})[0]
    assert finding["verdict"] == verdict
    assert f"of chance in {ranks.count(1)} of 2 runs, and in the gradient field of the untouched base in 2" in finding["text"]


def effect(measure: str, value: float, p: float) -> dict[str, Any]:
    interval = {name: [value - 0.01, value + 0.01] for name in ("effect_95", "control_95")}
    matched = {"matched_by": "mean |output|", "magnitude": 2.0, "matched_magnitudes": [1.5, 1.9]}
    return {"index": 7, "where": "irm", "controls_kind": "matched", "measure": measure, "effect": value, "p": p, "controls": 100,
            "control_median": 0.0, **interval, **matched}  # fmt: skip


@pytest.mark.parametrize(("second", "verdict"), [(0.01, HOLDS), (0.4, UNCLEAR)])
def test_an_ablation_is_told_with_its_sign_and_what_it_does_to_neutral_answers(second: float, verdict: str) -> None:
    aligned, neutral = "NLL of aligned answers", "NLL of neutral answers"
    runs = [
        {"name": name, "marked": [], "ablations": [effect(aligned, value, p), effect(neutral, -0.5, 0.9)]}
        for name, value, p in (("one", 0.25, 0.01), ("two", -0.125, second))
    ]
    finding = findings({"base": {"hidden_size": 576}, "runs": runs})[0]
    assert finding["verdict"] == verdict
    assert finding["claim"].endswith("more than zeroing the 100 indices nearest in mean |output|")
    for words in ("one +0.2500", "two -0.1250", "of neutral answers -0.5000", "of the index 2.00, of the controls 1.50 to 1.90"):
        assert words in finding["text"]
