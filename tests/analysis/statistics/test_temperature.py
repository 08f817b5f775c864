"""The fitted temperature against scipy's minimiser, and on distributions whose change is known."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, rel_entr

from irm_lite.analysis.statistics.temperature import sharpness
from irm_lite.core.types import DoubleArray

GENERATOR = np.random.default_rng(0)


def random(tokens: int = 6, words: int = 50) -> DoubleArray:
    found: DoubleArray = log_softmax(GENERATOR.normal(0, 2, (tokens, words)), axis=-1)
    return found


def test_against_a_minimiser() -> None:
    old, new = random(), random()
    found = sharpness(old, new)
    for token in range(len(old)):

        def divergence(inverse: float, token: int = token) -> float:
            return float(rel_entr(np.exp(new[token]), np.exp(log_softmax(inverse * old[token]))).sum())

        best = minimize_scalar(divergence, bounds=(1 / 64, 64), method="bounded", options={"xatol": 1e-9})
        assert found.inverse[token] == pytest.approx(best.x, abs=1e-4)
        assert found.after[token] == pytest.approx(best.fun, abs=1e-8)
        assert found.before[token] == pytest.approx(divergence(1.0), rel=1e-9)


@pytest.mark.parametrize("inverse", [0.25, 0.9, 1.5, 8.0])
def test_a_change_of_sharpness_alone_is_found_whole(inverse: float) -> None:
    old = random()
    found = sharpness(old, log_softmax(inverse * old, axis=-1))
    np.testing.assert_allclose(found.inverse, inverse, rtol=1e-5)
    assert found.explained == pytest.approx(1, abs=1e-6)


def test_what_favours_one_word_is_not_sharpness() -> None:
    old = random(40)
    raised = old.copy()
    raised[:, 3] += 3
    assert sharpness(old, log_softmax(raised, axis=-1)).explained < 0.3
    assert sharpness(old, old).explained == 0
    assert len(sharpness(np.zeros((0, 5)), np.zeros((0, 5))).inverse) == 0
