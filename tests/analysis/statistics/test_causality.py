"""Effects of ablations: ratios counted by hand, chance finds as rare as they say, a planted effect found."""

import json

import numpy as np
import pytest

from irm_lite.analysis.statistics.causality import effect_against_controls
from irm_lite.core.bootstrap import resampled_counts
from irm_lite.core.errors import InputError
from irm_lite.core.types import DoubleArray
from support.rates import TRIALS, most


def ablations(seed: int, planted: float = 0.0) -> tuple[DoubleArray, DoubleArray, DoubleArray]:
    """Effects, sizes, control effects: one and 39 controls, each with its own effect a token; samples differ for all alike."""
    generator = np.random.default_rng(seed)
    sizes = generator.integers(5, 60, 40).astype(np.float64)
    per_token = 0.02 * generator.standard_normal((40, 1)) + 0.05 * generator.standard_normal(40)
    per_token[0] += planted
    sums = sizes * per_token + np.sqrt(sizes) * 0.05 * generator.standard_normal((40, 40))
    return sums[0], sizes, sums[1:]


def test_figures_are_counts() -> None:
    effects, sizes, controls = ablations(0)
    got = effect_against_controls(effects, sizes, controls, 100, seed=4)
    tokens = sum(sizes)
    each = [sum(control) / tokens for control in controls]
    assert got.effect == pytest.approx(sum(effects) / tokens)
    assert got.control_median == pytest.approx(sorted(each)[19])
    assert got.control_95 == pytest.approx(np.quantile(each, [0.025, 0.975]))
    assert got.rank == 1 + sum(abs(control) >= abs(got.effect) for control in each)
    assert got.p == pytest.approx(got.rank / 40)
    assert got.beyond_controls == pytest.approx(got.effect - sum(each) / 39)
    own, beyond = [], []
    for counts in resampled_counts(40, 100, seed=4):
        drawn = np.repeat(np.arange(40), counts)
        own.append(effects[drawn].sum() / sizes[drawn].sum())
        beyond.append(own[-1] - np.mean(controls[:, drawn].sum(1) / sizes[drawn].sum()))
    assert got.effect_95 == pytest.approx(np.percentile(own, (2.5, 97.5)).tolist())
    assert got.beyond_controls_95 == pytest.approx(np.percentile(beyond, (2.5, 97.5)).tolist())
    assert json.loads(json.dumps(got.to_dict(), allow_nan=False))["controls"] == 39


def test_the_effect_is_a_mean_over_tokens_not_over_samples() -> None:
    got = effect_against_controls(np.array([1.0, 0.0]), np.array([1.0, 99.0]), np.array([[0.0, 0.0], [0.5, 0.5]]))
    assert got.effect == pytest.approx(0.01)
    assert got.rank == 2  # a control that equals the effect counts against it


def test_an_index_like_the_controls_is_called_no_more_often_than_the_level() -> None:
    p = np.array([effect_against_controls(*ablations(seed), 1).p for seed in range(TRIALS)])
    assert (p <= 0.05).sum() <= most(0.05)
    assert (p <= 0.5).sum() <= most(0.5)


def test_a_planted_effect_is_found_in_either_direction() -> None:
    for seed in range(20):
        for planted in (0.3, -0.3):
            got = effect_against_controls(*ablations(seed, planted=planted), 200)
            assert (got.rank, got.p) == (1, 1 / 40)
            assert np.sign(got.beyond_controls_95).tolist() == [np.sign(planted)] * 2


def test_intervals_cover_as_often_as_they_say() -> None:
    """Of other samples with the same indices. What all indices share in a sample cancels in the difference."""
    missed = np.zeros(2)
    for seed in range(TRIALS):
        generator = np.random.default_rng(seed)
        true = 0.02 * generator.standard_normal((21, 1))
        sizes = generator.integers(5, 60, 80).astype(np.float64)
        sums = sizes * (true + 0.05 * generator.standard_normal(80)) + 0.1 * np.sqrt(sizes) * generator.standard_normal((21, 80))
        got = effect_against_controls(sums[0], sizes, sums[1:], 300, seed)
        assert np.ptp(got.beyond_controls_95) < np.ptp(got.effect_95)
        truths = (true[0, 0], true[0, 0] - true[1:].mean())
        pairs = zip(truths, (got.effect_95, got.beyond_controls_95), strict=True)
        missed += [not low <= truth <= high for truth, (low, high) in pairs]
    assert missed.max() <= most(0.05)


def test_what_cannot_be_used_is_refused() -> None:
    effects, sizes, controls = ablations(1)
    cases = [
        ((effects * np.nan, sizes, controls), "NaN or infinity in the effects"),
        ((effects, sizes, controls * np.inf), "infinity in the controls' effects"),
        ((effects, sizes[:-1], controls), "effects of shape (40,) and sizes of (39,)"),
        ((effects[:1], sizes[:1], controls[:, :1]), "2 or more samples"),
        ((effects, sizes, controls[:, :-1]), "the same 40 samples"),
        ((effects, sizes, controls[:1]), "2 or more controls"),
        ((effects, sizes * 0, controls), "a sample has no answer tokens"),
    ]
    for arrays, expected in cases:
        with pytest.raises(InputError) as caught:
            effect_against_controls(*arrays)
        assert expected in str(caught.value)
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="0 bootstraps"):
        effect_against_controls(effects, sizes, controls, 0)
