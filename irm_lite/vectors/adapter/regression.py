"""The best low-rank map from what a linear map reads to what an IRM adds there, by least squares: factors of any rank, untrained.

W = (C + lambda I)^-1 E[x y'] predicts the IRM's output y from the input x. Of rank r the best one keeps the first r directions of
what W predicts (reduced-rank regression). Where y is the same for every token this is the closed form of one vector:
B along y, and A the predictor of 1.
"""

from dataclasses import dataclass

import numpy as np
import scipy.linalg

from irm_lite.core.types import DoubleArray, FloatArray
from irm_lite.vectors.adapter.predictor import RIDGES, solutions

_DEAD = 1e-6  # of the first factor's size: a factor below it says nothing, and starts as a whitened direction of the inputs


@dataclass(frozen=True)
class Regression:
    """`a` (r, n_in) and `b` (H, r): y is predicted as b (a x), each a x of mean square 1. `error`: E|y - b a x|^2 / E|y|^2 on what
    chose the ridge. `basis` (k, n_in): the inputs' strongest directions, each of mean square 1 too."""

    a: FloatArray
    b: FloatArray
    ridge: float
    error: float
    basis: FloatArray


def regress(
    fitted_on: tuple[FloatArray, FloatArray], chosen_on: tuple[FloatArray, FloatArray], rank: int, directions: int
) -> Regression:
    """From inputs (T, n_in) and outputs (T, H), and others that choose the ridge, by the error of the whole W."""
    x, y = (each.astype(np.float64) for each in fitted_on)
    there, wanted = chosen_on
    power = max(float(np.square(wanted, dtype=np.float64).sum()), np.finfo(np.float64).tiny)
    tried = (  # a generator: each w is of n_in x H
        (ridge, w, float(np.square(wanted - there @ w).sum()) / power) for ridge, w in zip(RIDGES, solutions(x, y), strict=True)
    )
    ridge, w, _ = min(tried, key=lambda each: each[2])
    basis = _whitened(x, max(directions, rank))
    fitted = x @ w
    size = fitted.shape[1]
    _, vectors = scipy.linalg.eigh(fitted.T @ fitted, subset_by_index=[max(0, size - rank), size - 1])
    b = vectors[:, ::-1]
    a = b.T @ w.T
    sizes = np.sqrt(np.square(x @ a.T).mean(0))
    alive = sizes > _DEAD * max(sizes.max(initial=0.0), np.finfo(np.float64).tiny)
    a = np.where(alive[:, None], a / np.where(alive, sizes, 1.0)[:, None], basis[: len(a)])
    b = b * np.where(alive, sizes, 0.0)
    left = wanted - there @ a.T @ b.T
    return Regression(
        a.astype(np.float32), b.astype(np.float32), ridge, float(np.square(left).sum()) / power, basis.astype(np.float32)
    )


def _whitened(x: DoubleArray, count: int) -> DoubleArray:
    """(k, n_in): the `count` strongest principal directions, each divided by the inputs' size along it."""
    tokens, size = x.shape
    count = min(count, tokens, size)
    if size <= tokens:
        values, vectors = scipy.linalg.eigh(x.T @ x / tokens, subset_by_index=[size - count, size - 1])
    else:
        values, own = scipy.linalg.eigh(x @ x.T / tokens, subset_by_index=[tokens - count, tokens - 1])
        vectors = x.T @ own / np.sqrt(np.maximum(values, np.finfo(np.float64).tiny) * tokens)
    floor = max(float(values[-1]) * 1e-9, np.finfo(np.float64).tiny)
    whitened: DoubleArray = (vectors / np.sqrt(np.maximum(values, floor))).T[::-1]
    return whitened
