"""Explanation by the base: correlations against scipy and statsmodels, features that matter told from those that follow."""

import json

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats
from statsmodels.stats.multitest import multipletests

from irm_lite.analysis.statistics.explanation import explain
from irm_lite.core.bootstrap import resampled_counts
from irm_lite.core.errors import InputError
from irm_lite.core.types import DoubleArray
from support.rates import TRIALS, most


def features_of(seed: int, width: int = 120) -> tuple[DoubleArray, dict[str, DoubleArray]]:
    """An importance that follows `cause`; `echo` follows `cause` too; `ties` has few values; `chance` is none of its business."""
    generator = np.random.default_rng(seed)
    cause, *others = generator.standard_normal((5, width))
    features = {
        "cause": np.exp(3 * cause),
        "echo": cause + others[0],
        "ties": np.round(others[1]),
        "chance": others[2] ** 3,
    }
    return np.exp(cause + others[3]), features


def test_every_figure_is_that_of_ordinary_least_squares_on_ranks() -> None:
    importance, features = features_of(0)
    got = explain(importance.astype(np.float32), features, 20)
    ranks = np.stack([stats.rankdata(each) for each in features.values()], axis=1)
    model = sm.OLS(stats.rankdata(importance.astype(np.float32)), sm.add_constant(ranks)).fit()
    assert (got.r2, got.adjusted_r2) == pytest.approx((model.rsquared, model.rsquared_adj), abs=1e-9)
    t, p = model.tvalues[1:], model.pvalues[1:]
    found = got.features.values()
    assert [each.partial for each in found] == pytest.approx(t / np.sqrt(t**2 + model.df_resid), abs=1e-9)
    assert [each.partial_p for each in found] == pytest.approx(p, abs=1e-9)
    assert [each.partial_p_holm for each in found] == pytest.approx(multipletests(p, method="holm")[1], abs=1e-9)
    for name, values in features.items():
        expected = stats.spearmanr(importance.astype(np.float32), values).statistic
        assert got.features[name].spearman == pytest.approx(expected, abs=1e-9)


def test_one_feature_alone_has_its_spearman_for_a_partial() -> None:
    importance, features = features_of(1)
    alone = explain(importance, {"echo": features["echo"]}, 20)
    expected = stats.spearmanr(importance, features["echo"])
    assert alone.features["echo"].partial == pytest.approx(expected.statistic)
    assert alone.features["echo"].partial_p == alone.features["echo"].partial_p_holm == pytest.approx(expected.pvalue)
    assert alone.r2 == pytest.approx(expected.statistic**2)


def test_intervals_are_those_of_indices_drawn_and_ranked_anew() -> None:
    importance, features = features_of(2, 30)
    got = explain(importance, features, 250, seed=6)  # more than one chunk
    for name, values in features.items():
        drawn = [
            stats.spearmanr(np.repeat(importance, counts), np.repeat(values, counts)).statistic
            for counts in resampled_counts(30, 250, seed=6)
        ]
        assert got.features[name].spearman_95 == pytest.approx(np.percentile(drawn, (2.5, 97.5)).tolist(), abs=1e-9)


@pytest.mark.slow
def test_intervals_cover_the_correlation() -> None:
    """Of a bivariate normal with r it is 6 / pi asin(r / 2) (Kruskal 1958)."""
    truth, missed = 6 / np.pi * np.arcsin(0.6 / 2), 0
    for seed in range(TRIALS):
        a, b = np.random.default_rng(seed).standard_normal((2, 200))
        low, high = explain(a, {"b": 0.6 * a + 0.8 * b}, 300, seed).features["b"].spearman_95
        missed += not low <= truth <= high
    assert missed <= most(0.05)


def test_an_echo_of_the_cause_is_told_from_the_cause() -> None:
    """The echo correlates, and given the cause it has no part of its own."""
    called = {"echo": 0, "ties": 0, "chance": 0}
    for seed in range(TRIALS):
        importance, features = features_of(seed)
        found = explain(importance, features, 1).features
        assert found["cause"].partial_p_holm < 0.001
        assert found["echo"].spearman > 0.2
        for name in called:
            called[name] += found[name].partial_p <= 0.05
    assert max(called.values()) <= most(0.05)


def test_features_without_a_part_are_called_by_holm_no_more_often_than_the_level() -> None:
    called = 0
    for seed in range(TRIALS):
        _, features = features_of(seed, 60)
        importance = np.random.default_rng(10_000 + seed).standard_t(3, 60)
        called += min(each.partial_p_holm for each in explain(importance, features, 1).features.values()) <= 0.05
    assert called <= most(0.05)


def test_a_perfect_explanation_is_finite() -> None:
    _, features = features_of(3)
    got = explain(features["cause"] ** 3, features, 50)
    assert got.r2 == pytest.approx(1)
    assert got.features["cause"].partial == pytest.approx(1)
    assert got.features["cause"].partial_p == pytest.approx(0, abs=1e-9)
    assert got.features["chance"].partial == 0
    json.dumps(got.to_dict(), allow_nan=False)


def test_a_feature_that_few_resamples_hold_has_an_interval() -> None:
    single = np.zeros(40)
    single[7] = 1.0  # in a third of all resamples it is not drawn
    importance = np.arange(40.0)
    low, high = explain(importance, {"single": single}, 200).features["single"].spearman_95
    assert low <= 0 <= high


def test_what_cannot_be_used_is_refused_by_name() -> None:
    importance, features = features_of(4)
    norm = features["echo"] - features["echo"].min() + 1
    broken = norm.copy()
    broken[3] = np.nan
    thirds = {f"third{n}": np.arange(120) % 3 == n for n in range(3)}  # of which two give the last
    both = {"norm": norm, "chance": features["chance"]}
    cases = [
        ({**both, "gain": np.full(120, 0.1)}, "the feature gain is the same for every index"),
        ({**both, "head": broken}, "numbers beyond float32 in the feature head"),
        ({**both, "head": norm[:-1]}, "the feature head of shape (119,) and the importance of (120,)"),
        ({**both, "square": norm**2}, "follow from each other: norm, square"),
        ({**both, **{name: each.astype(np.float32) for name, each in thirds.items()}}, "other: third0, third1, third2: leave"),
        ({}, "there are no features"),
    ]
    for given, expected in cases:
        with pytest.raises(InputError) as caught:
            explain(importance, given)
        assert expected in str(caught.value)
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="6 features are too many for 8 indices: give 5 at most"):
        explain(np.arange(8.0), {str(n): np.random.default_rng(n).standard_normal(8) for n in range(6)})
    with pytest.raises(InputError, match="the importance is the same"):
        explain(np.ones(120), both)
    with pytest.raises(InputError, match="0 bootstraps"):
        explain(importance, both, 0)
