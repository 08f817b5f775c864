"""Bootstrap intervals of ratios over samples. Whole answers are resampled: the tokens of one are not independent."""

import numpy as np

from irm_lite.core.types import DoubleArray, IntArray

RESAMPLES = 2000
Interval = tuple[float, float]


def resampled_counts(n: int, resamples: int = RESAMPLES, seed: int = 0) -> IntArray:
    """How often each of n is drawn when n are drawn with replacement: (resamples, n)."""
    return np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=resamples)


def resampled_sums(columns: DoubleArray, seed: int = 0, resamples: int = RESAMPLES) -> DoubleArray:
    """Sums of the columns (N, C) over N rows drawn with replacement: (resamples, C)."""
    sums: DoubleArray = resampled_counts(len(columns), resamples, seed) @ columns
    return sums


def interval(values: DoubleArray) -> Interval:
    """The central 95% of resampled values (percentile bootstrap; Efron and Tibshirani 1993, chapter 13)."""
    low, high = np.percentile(values, (2.5, 97.5))
    return float(low), float(high)
