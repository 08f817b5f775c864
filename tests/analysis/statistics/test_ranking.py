"""Rankings of indices: planted ones found in one run and across runs, noise left alone, p-values against scipy and counts."""

import json
from collections.abc import Callable
from itertools import product
from math import comb

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from irm_lite.analysis.statistics.holm import holm
from irm_lite.analysis.statistics.prominence import prominent
from irm_lite.analysis.statistics.ranking import common, compare_runs, importance
from irm_lite.core.errors import InputError
from irm_lite.core.types import DoubleArray
from support.rates import TRIALS, most


def noise(seed: int, layers: int = 6, width: int = 50) -> DoubleArray:
    generator = np.random.default_rng(seed)
    return 10.0 ** generator.uniform(-3, 1, (layers, 1)) * generator.standard_t(4, (layers, width))


def test_importance_is_a_mean_in_which_every_layer_weighs_the_same() -> None:
    magnitudes = np.abs(noise(0, 3, 9)).astype(np.float32)
    by_hand = [
        sum(float(row[index]) / (sum(map(float, row)) / len(row)) for row in magnitudes) / len(magnitudes) for index in range(9)
    ]
    assert importance(magnitudes).tolist() == pytest.approx(by_hand)
    assert importance(magnitudes * np.array([[1e-6], [1], [1e6]], np.float32)).tolist() == pytest.approx(by_hand, rel=1e-5)
    with_silence = np.vstack([magnitudes, np.zeros((1, 9), np.float32)])
    assert importance(with_silence).tolist() == pytest.approx(by_hand)
    with pytest.raises(InputError, match="means of .output"):
        importance(-magnitudes)
    with pytest.raises(InputError, match="silent in every layer"):
        importance(0 * magnitudes)


def test_a_quiet_index_is_found_behind_a_loud_one() -> None:
    """Unless it is set aside, the loud one's values, scattered over the columns, hide the quiet one in every trial."""
    for seed in range(10):
        values = np.random.default_rng(seed).standard_normal((12, 300))
        values[:, 17] = 60 * np.sign(values[:, 17])
        values[:, 200] = 3.2 * np.sign(values[:, 200])
        found = prominent(values, 199, seed=seed)
        assert found.indices[:2] == [17, 200]
        assert len(found.indices) <= 3
        assert (found.p[found.indices] <= 0.05).all()


def test_an_index_of_one_layer_does_not_stand_out() -> None:
    values = np.random.default_rng(1).standard_normal((12, 300))
    values[4, 99] = 500.0
    assert prominent(values, 199).indices == []


@pytest.mark.slow
def test_noise_has_a_prominent_index_no_more_often_than_the_level() -> None:
    """With a planted one too: then the false finds are the others."""
    false = np.zeros(2)
    for seed in range(TRIALS):
        values = noise(seed)
        false[0] += bool(prominent(values, 99, seed=seed).indices)
        values[:, 3] *= 30
        false[1] += bool(set(prominent(values, 99, seed=seed).indices) - {3})
    assert false.max() <= most(0.05)


def test_prominence_is_the_largest_mean_over_permutations() -> None:
    """Against a max-T of its own, drawn another way, where nothing is set aside."""
    values = noise(5, 3, 10)
    found = prominent(values, 4000, alpha=0.0005)
    assert found.indices == []
    scaled = np.abs(values) / np.sqrt(np.mean(values**2, axis=1))[:, None]
    assert found.statistic == pytest.approx(scaled.mean(0))
    generator = np.random.default_rng(77)
    largest = np.array([np.mean([row[generator.permutation(10)] for row in scaled], axis=0).max() for _ in range(4000)])
    expected = [(largest >= each).mean() for each in scaled.mean(0)]
    assert 0.05 < min(expected) < 0.95
    assert found.p == pytest.approx(expected, abs=0.04)


def test_two_runs_against_counts() -> None:
    importances = np.abs(noise(6, 3, 30))
    importances[1] += 0.5 * importances[0] * importances[1].std() / importances[0].std()
    found = compare_runs(importances.astype(np.float32), 7)
    assert [each.runs for each in found] == [(0, 1), (0, 2), (1, 2)]
    for each in found:
        a, b = (importances[run] for run in each.runs)
        expected = stats.pearsonr(stats.rankdata(a), stats.rankdata(b))
        assert (each.spearman, each.spearman_p) == pytest.approx((expected.statistic, expected.pvalue), abs=1e-6)
        tops = [{index for index in range(30) if (values > values[index]).sum() < 7} for values in (a, b)]
        assert each.overlap == len(tops[0] & tops[1])
        assert each.expected == pytest.approx(49 / 30)
        ways = sum(comb(7, n) * comb(23, 7 - n) for n in range(each.overlap, 8))
        assert each.overlap_p == pytest.approx(ways / comb(30, 7))
    assert compare_runs(importances, 30)[0].overlap_p == pytest.approx(1)
    json.dumps([each.to_dict() for each in found], allow_nan=False)


def test_unrelated_runs_agree_no_more_often_than_the_level() -> None:
    found = [compare_runs(np.abs(noise(seed, 2, 80)), 15)[0] for seed in range(TRIALS)]
    assert sum(each.spearman_p <= 0.05 for each in found) <= most(0.05)
    assert sum(each.overlap_p <= 0.05 for each in found) <= most(0.05)


@pytest.mark.slow
def test_holm_is_statsmodels() -> None:
    for seed in range(5):
        p = np.random.default_rng(seed).uniform(0, 1, 20) ** 3
        p[4] = p[5]
        np.testing.assert_allclose(holm(p), multipletests(p, method="holm")[1], atol=1e-12)


def test_the_p_of_a_count_is_that_of_all_ranks_there_can_be() -> None:
    importances = np.abs(noise(7, 3, 9))
    found = common(importances, 4)
    ranks = np.array([[int((run >= value).sum()) for value in run] for run in importances])
    counts = (ranks <= 4).sum(0)
    assert found.counts.tolist() == counts.tolist()
    assert found.worst_rank.tolist() == ranks.max(0).tolist()
    every = [sum(rank <= 4 for rank in ranks) for ranks in product(range(1, 10), repeat=3)]
    alone = np.array([sum(each >= m for each in every) for m in counts])
    np.testing.assert_allclose(found.p, multipletests(alone / 9**3, method="holm")[1], atol=1e-12)


def test_equal_importances_take_the_worst_rank() -> None:
    importances = np.zeros((4, 40))
    importances[:, :3] = [3.0, 2.0, 2.0]
    found = common(importances, 3)
    assert found.worst_rank[:4].tolist() == [1, 3, 3, 40]
    assert found.indices == found.in_all == [0, 1, 2]
    assert common(importances, 2).indices == [0]


def test_an_index_is_common_where_most_runs_have_it_on_top() -> None:
    for seed in range(20):
        importances = np.abs(noise(seed, 8, 200))
        importances[:, 11] = np.sort(importances, axis=1)[:, -4]  # near the top of all eight
        importances[:7, 22] = 1e3  # on top of all but one
        importances[7, 22] = np.median(importances[7])
        importances[:, 33] = np.sort(importances, axis=1)[:, -30]  # better than most everywhere, but never near the top
        found = common(importances, 10)
        assert {11, 22} <= set(found.indices)
        assert 33 not in found.indices
        assert 11 in found.in_all
        assert 22 not in found.in_all
        document = json.loads(json.dumps(found.to_dict(), allow_nan=False))
        assert document["counts"][found.indices.index(22)] == 7


def test_independent_runs_have_a_common_index_no_more_often_than_the_level() -> None:
    for runs in (2, 4, 24):
        found = [common(np.abs(noise(seed, runs, 60)), 10) for seed in range(TRIALS)]
        assert sum(bool(each.indices) for each in found) <= most(0.05)


def test_what_cannot_be_used_is_refused() -> None:
    values = np.abs(noise(8))
    flat = values.copy()
    flat[2] = 1.0
    cases: list[tuple[Callable[[], object], str]] = [
        (lambda: prominent(values, 0), "0 permutations are too few"),
        (lambda: prominent(values, 100, alpha=0.001), "100 permutations cannot reach alpha 0.001: take 1000 or more"),
        (lambda: prominent(values, alpha=1.5), "alpha is 1.5"),
        (lambda: prominent(values[:, :5]), "5 indices in the values are too few"),
        (lambda: compare_runs(values, 51), "the top 51 of 50 indices"),
        (lambda: compare_runs(values, 0), "a k from 1 to 50"),
        (lambda: compare_runs(values[:1], 3), "1 runs in the importances are too few: give at least 2"),
        (lambda: compare_runs(flat, 3), "run 2 gives every index the same importance"),
        (lambda: common(values, 51), "the top 51 of 50 indices"),
        (lambda: common(flat, 3), "run 2"),
        (lambda: common(values, 3, alpha=0), "alpha is 0"),
        (lambda: common(values * np.nan, 3), "in the importances: record again"),
        (lambda: importance(values[0]), "give layers x indices"),
    ]
    for call, expected in cases:
        with pytest.raises(InputError) as caught:
            call()
        assert expected in str(caught.value)
        assert "\n" not in str(caught.value)
