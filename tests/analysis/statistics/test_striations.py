"""Striations: sums of squares against statsmodels, permutations against theory, planted ones found and noise left alone."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.spatial.distance import cosine
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm

from irm_lite.analysis.statistics.striations import correlations, cosines, layer_normalised, striation_test, two_way
from irm_lite.core.errors import InputError
from irm_lite.core.types import DoubleArray
from support.rates import TRIALS, most


def noise(seed: int, layers: int = 4, width: int = 40) -> DoubleArray:
    """Heavy tails, and layers whose scales and means differ by orders of magnitude, as an IRM's do."""
    generator = np.random.default_rng(seed)
    scales = 10.0 ** generator.uniform(-3, 1, (layers, 1))
    return scales * (generator.standard_t(3, (layers, width)) + generator.standard_normal((layers, 1)))


@pytest.mark.parametrize("normalised", [False, True])
def test_shares_are_those_of_an_analysis_of_variance(normalised: bool) -> None:
    values = noise(0, 4, 12) + np.random.default_rng(1).standard_normal(12)
    if normalised:
        values = layer_normalised(values)
    layer, index = np.indices(values.shape)
    frame = pd.DataFrame({"v": values.ravel(), "layer": layer.ravel(), "index": index.ravel()})
    squares = anova_lm(ols("v ~ C(layer) + C(index)", frame).fit())["sum_sq"]
    shares = two_way(values.astype(np.float64))
    expected = [squares["C(index)"], squares["C(layer)"], squares["Residual"]] / squares.sum()
    assert [shares.index, shares.layer, shares.rest] == pytest.approx(expected.tolist(), abs=1e-9)


def test_shares_of_what_is_planted_pure() -> None:
    generator = np.random.default_rng(2)
    by_index, by_layer = np.tile(generator.standard_normal(9), (3, 1)), np.tile(generator.standard_normal((3, 1)), 9)
    assert two_way(by_index).index == pytest.approx(1)
    assert two_way(by_layer).layer == pytest.approx(1)
    sums = two_way(by_index + by_layer)
    assert sums.index / sums.layer == pytest.approx(by_index.var() / by_layer.var())
    assert sums.rest == pytest.approx(0, abs=1e-12)
    for constant in (0.0, 0.1):  # 0.1 has a mean that rounds
        assert two_way(np.full((3, 9), constant)).to_dict() == {"index": 0, "layer": 0, "rest": 0}
        assert striation_test(np.full((3, 9), constant), 9).index_share.p == 1


@pytest.mark.parametrize("scale", [1e-200, 1e30])
def test_nothing_depends_on_the_unit(scale: float) -> None:
    values = noise(3)
    assert two_way(values * scale).index == pytest.approx(two_way(values).index)
    assert correlations(values * scale).neighbours == pytest.approx(correlations(values).neighbours)
    assert striation_test(values * scale, 19).index_share.p == striation_test(values, 19).index_share.p
    np.testing.assert_allclose(layer_normalised(values * scale), layer_normalised(values))


def test_layers_get_unit_rms_and_silent_ones_stay_silent() -> None:
    values = noise(4)
    values[2] = 0
    normalised = layer_normalised(values.astype(np.float32))
    assert np.sqrt(np.square(normalised).mean(1)) == pytest.approx([1, 1, 0, 1])
    assert correlations(values).neighbours == pytest.approx(stats.pearsonr(values[0], values[1]).statistic / 3)


def test_likeness_is_the_mean_of_scipys() -> None:
    values = noise(5, 5, 30) + np.random.default_rng(6).standard_normal(30)
    pairs = [(a, b) for a in range(5) for b in range(a + 1, 5)]
    by_hand = {pair: stats.pearsonr(values[pair[0]], values[pair[1]]).statistic for pair in pairs}
    got = correlations(values)
    assert got.all_pairs == pytest.approx(np.mean(list(by_hand.values())), abs=1e-9)
    assert got.neighbours == pytest.approx(np.mean([r for (a, b), r in by_hand.items() if b == a + 1]), abs=1e-9)
    angles = {(a, b): 1 - cosine(values[a], values[b]) for a, b in pairs}
    field = cosines(values)
    assert field.all_pairs == pytest.approx(np.mean(list(angles.values())), abs=1e-9)
    assert field.neighbours == pytest.approx(np.mean([r for (a, b), r in angles.items() if b == a + 1]), abs=1e-9)


def test_the_null_is_what_theory_says() -> None:
    """Permuted within layers, an index keeps in expectation 1 / L of what is not the layers'; neighbours correlate by 0 with
    a variance of 1 / (H - 1) a pair."""
    values = noise(7, 4, 60) + np.random.default_rng(8).standard_normal(60)
    tested, shares = striation_test(values, 2000), two_way(values)
    assert tested.index_share.observed == pytest.approx(shares.index)
    assert tested.neighbour_correlation.observed == pytest.approx(correlations(values).neighbours)
    assert tested.index_share.null_mean == pytest.approx((1 - shares.layer) / 4, rel=0.02)
    spread = np.sqrt(1 / 59 / 3)
    assert tested.neighbour_correlation.null_mean == pytest.approx(0, abs=4 * spread / np.sqrt(2000))
    assert tested.neighbour_correlation.null_95th == pytest.approx(1.645 * spread, rel=0.15)


def test_p_of_two_layers_is_that_of_scipys_exact_pairings() -> None:
    generator = np.random.default_rng(9)
    values = generator.standard_normal((2, 8))
    values[1] += 0.5 * values[0]
    exact = stats.permutation_test(
        (values[0],),
        lambda x, axis: ((x - values[0].mean()) * (values[1] - values[1].mean())).sum(axis),
        permutation_type="pairings",
        n_resamples=np.inf,
        alternative="greater",
        vectorized=True,
    )
    assert 0.02 < exact.pvalue < 0.5
    assert striation_test(values, 4000).neighbour_correlation.p == pytest.approx(exact.pvalue, abs=0.025)


def test_noise_is_called_striated_no_more_often_than_the_level() -> None:
    """Layers of very different means and scales are no striations."""
    tests = [striation_test(noise(seed), 99, seed) for seed in range(TRIALS)]
    assert sum(test.index_share.p <= 0.05 for test in tests) <= most(0.05)
    assert sum(test.neighbour_correlation.p <= 0.05 for test in tests) <= most(0.05)


def test_planted_striations_are_found() -> None:
    for seed in range(20):
        generator = np.random.default_rng(seed)
        values = generator.standard_normal((6, 200)) + 0.6 * generator.standard_normal(200)
        tested = striation_test(values, 199, seed)
        assert tested.index_share.p == tested.neighbour_correlation.p == 1 / 200
        assert tested.index_share.observed > tested.index_share.null_95th
    # Striated in neighbours that share nothing with the layers beyond: a walk from layer to layer.
    walk = np.random.default_rng(0).standard_normal((6, 200))
    for layer in range(1, 6):
        walk[layer] = 0.7 * walk[layer - 1] + 0.7 * walk[layer]
    assert striation_test(walk, 199).neighbour_correlation.p == 1 / 200


def test_a_seed_repeats_and_the_result_is_json() -> None:
    assert striation_test(noise(1), 50, 4) == striation_test(noise(1), 50, 4)
    assert striation_test(noise(1), 50, 4) != striation_test(noise(1), 50, 5)
    document = json.loads(json.dumps(striation_test(noise(1), 50).to_dict(), allow_nan=False))
    assert set(document["index_share"]) == {"observed", "null_mean", "null_95th", "p"}
    assert document["permutations"] == 50


@pytest.mark.parametrize("statistic", [two_way, correlations, cosines, layer_normalised, striation_test])
def test_what_cannot_be_used_is_refused(statistic: object) -> None:
    assert callable(statistic)
    broken = noise(0)
    broken[1, 3] = np.nan
    endless = noise(0)
    endless[0, 0] = -np.inf
    cases = [
        (broken, "record again"),
        (endless, "record again"),
        (np.full((3, 9), 1e200), "beyond float32"),
        (np.ones((1, 40)), "1 layers in the .*: give at least 2"),
        (np.ones((4, 7)), "7 indices in the .*: give at least 8"),
        (np.ones(40), "layers x indices"),
    ]
    for values, expected in cases:
        with pytest.raises(InputError, match=expected) as caught:
            statistic(values)
        assert "\n" not in str(caught.value)


def test_zero_permutations_are_refused() -> None:
    with pytest.raises(InputError, match="0 permutations are too few"):
        striation_test(noise(0), 0)
