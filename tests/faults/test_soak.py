"""The soak's judgement, on memory whose course is known."""

import numpy as np
import pytest

from faults.soak import FLAT, slope

SECONDS = np.arange(0, 3000, 10.0)


@pytest.mark.parametrize(("rise", "flat"), [(0.0, True), (FLAT / 2, True), (2 * FLAT, False), (-50.0, True)])
def test_a_planted_slope_is_found_and_judged(rise: float, flat: bool) -> None:
    noise = np.random.default_rng(0).normal(0, 0.5, len(SECONDS))
    found = slope(SECONDS.tolist(), (500 + rise * SECONDS / 3600 + noise).tolist())
    assert found.low < rise < found.high
    assert found.flat == flat


def test_a_few_minutes_show_nothing() -> None:
    assert not slope(SECONDS[:24].tolist(), [500.0] * 24).flat
