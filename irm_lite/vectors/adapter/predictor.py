"""The least-squares predictor of the constant 1 from what a linear map reads: A of the rank-1 adapter whose B is the vector.

A = (C + lambda I)^-1 mu, C = E[x x'] and mu = E[x] over tokens. Lambda is a share of C's mean diagonal, chosen on other texts than
those that C is of; the error is told on a third set.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy.linalg

from irm_lite.core.types import DoubleArray, FloatArray

RIDGES = (1.0, 0.3, 0.1, 0.03, 0.01, 1e-3, 1e-4)  # shares of the mean diagonal


@dataclass(frozen=True)
class Predictor:
    """`a` (n_in,): its product with an input is to be 1. `ridge`: the share that was chosen, `error`: on what chose it."""

    a: FloatArray
    ridge: float
    error: float


def fit(
    inputs: FloatArray, validation: FloatArray, target: DoubleArray | None = None, wanted: DoubleArray | None = None
) -> Predictor:
    """From inputs (T, n_in) of one map, and others (V, n_in) that choose the ridge.

    `target` (T,) and `wanted` (V,) are what is to be predicted of each token, 1 if not given.
    """
    x, ones = inputs.astype(np.float64), np.ones(len(inputs)) if target is None else target
    aim = np.ones(len(validation)) if wanted is None else wanted
    found = ((ridge, a, mean_square(aim - validation @ a)) for ridge, a in zip(RIDGES, solutions(x, ones), strict=True))
    ridge, a, error = min(found, key=lambda each: each[2])
    return Predictor(a.astype(np.float32), ridge, error)


def solutions(x: DoubleArray, target: DoubleArray) -> Iterator[DoubleArray]:
    """One a ridge, (n_in,) or (n_in, H) as the target is (T,) or (T, H), by the smaller of the two systems: of the inputs' size, or
    of the tokens' number."""
    tokens, size = x.shape
    primal = size <= tokens
    gram = (x.T @ x if primal else x @ x.T) / tokens
    right = x.T @ target / tokens if primal else target / tokens
    mean_diagonal = max(float(np.einsum("ij,ij->", x, x)) / tokens / size, np.finfo(np.float32).tiny)
    diagonal = np.einsum("ii->i", gram)
    own = diagonal.copy()
    for ridge in RIDGES:
        diagonal[:] = own + ridge * mean_diagonal
        solved = scipy.linalg.solve(gram, right, assume_a="pos")
        yield solved if primal else x.T @ solved


def mean_square(values: DoubleArray | FloatArray) -> float:
    return float(np.mean(np.square(values, dtype=np.float64)))
