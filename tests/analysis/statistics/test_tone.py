"""tone_effect: against every labelling there is, planted indices, and noise that is more alike within a setting."""

from itertools import product

import numpy as np
import pytest
from scipy.stats import binom, rankdata

from irm_lite.analysis.statistics.tone import tone_effect
from irm_lite.core.errors import InputError
from irm_lite.core.types import DoubleArray

TRIALS = 200
SETTINGS = [f"setting {number}" for number in range(8) for _ in range(3)]
EMOTIONAL = [True, True, False] * 8


def runs(seed: int, width: int = 80) -> DoubleArray:
    """24 runs of 8 settings and 3 tones, no tone effect: a base that all share, and a setting that three share."""
    generator = np.random.default_rng(seed)
    base, setting = generator.standard_normal(width), np.repeat(generator.standard_normal((8, width)), 3, axis=0)
    found: DoubleArray = np.exp(base + 2 * setting + generator.standard_normal((24, width)))
    return found


@pytest.mark.slow
def test_against_every_labelling() -> None:
    """Two settings of one chosen run and two others: 3 x 3 labellings, each with the same chance."""
    importances = runs(1, 12)[:6]
    chosen = [True, False, False, False, True, False]
    found = tone_effect(importances, chosen, ["a"] * 3 + ["b"] * 3, permutations=20000, seed=3)
    ranks = np.stack([rankdata(-each) for each in importances]) / 12

    def difference(first: int, second: int) -> DoubleArray:
        blocks = []
        for offset, one in ((0, first), (3, second)):
            others = [ranks[offset + each] for each in range(3) if each != one]
            blocks.append(sum(others) / 2 - ranks[offset + one])
        mean: DoubleArray = (blocks[0] + blocks[1]) / 2
        return mean

    observed = difference(0, 1)
    np.testing.assert_allclose(found.difference, observed, atol=1e-12)
    largest = np.array([np.abs(difference(*each)).max() for each in product(range(3), repeat=2)])
    exact = np.array([(largest >= abs(each) - 1e-12).mean() for each in observed])
    np.testing.assert_allclose(found.p, exact, atol=0.02)


@pytest.mark.slow
def test_a_planted_tone_is_found_in_the_direction_that_it_has() -> None:
    for seed in range(20):
        importances = runs(seed)
        importances[EMOTIONAL, 7] = importances.max(1)[EMOTIONAL] * 2
        importances[~np.array(EMOTIONAL), 7] = importances.min(1)[~np.array(EMOTIONAL)] / 2
        importances[:, 9] = importances.max(1) * 3  # loud in every run: of the base, not of the tone
        found = tone_effect(importances, EMOTIONAL, SETTINGS, 300)
        assert found.indices == [7]
        assert found.difference[7] > 0.9
        assert tone_effect(importances, [not each for each in EMOTIONAL], SETTINGS, 300).difference[7] < -0.9


@pytest.mark.slow
def test_without_a_tone_it_is_found_no_more_often_than_the_level() -> None:
    false = sum(bool(tone_effect(runs(seed), EMOTIONAL, SETTINGS, 199, seed=seed).indices) for seed in range(TRIALS))
    assert false <= binom.ppf(0.999, TRIALS, 0.05)


def test_what_cannot_be_used_is_refused() -> None:
    with pytest.raises(InputError, match="no block has runs of both kinds"):
        tone_effect(runs(0)[:4], [True, True, False, False], ["a", "a", "b", "b"])
    with pytest.raises(InputError, match="24 runs have 3 labels and 24 blocks"):
        tone_effect(runs(0), [True] * 3, SETTINGS)
