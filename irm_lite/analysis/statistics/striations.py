"""Striations: how far values (L, H) are the same index by index in every layer."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from irm_lite.analysis.statistics.checks import require_positive, table
from irm_lite.core.types import DoubleArray, Reals

_TIE = 1e-12  # a permutation that gives the observed value again must count, whatever the order of its sums


@dataclass(frozen=True)
class TwoWay:
    """Shares of the sum of squares about the grand mean. They sum to 1; all are 0 where the values are constant."""

    index: float
    layer: float
    rest: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Likeness:
    """Mean likeness of two layers, in -1..1: over the L - 1 pairs of neighbours, and over all L (L - 1) / 2 pairs."""

    neighbours: float
    all_pairs: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Permuted:
    """A statistic against its permutations: their mean, their 95th percentile, and p, one-sided."""

    observed: float
    null_mean: float
    null_95th: float
    p: float


@dataclass(frozen=True)
class StriationTest:
    index_share: Permuted
    neighbour_correlation: Permuted
    permutations: int

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def layer_normalised(values: Reals) -> DoubleArray:
    """(L, H) -> (L, H): each layer's vector to unit RMS; a silent layer, all zero, stays so.

    Layers differ in scale by orders of magnitude: without this a few of them decide every sum over layers. Raises
    InputError where the values cannot be used.
    """
    return _to_norm(table(values, "the values"), np.sqrt(values.shape[1]))


def two_way(values: Reals) -> TwoWay:
    """Two-way analysis of variance of (L, H) without replication, so that the interaction is in the rest.

    SS_index = L sum_h (mean_h - mean)^2, SS_layer = H sum_l (mean_l - mean)^2 (Scheffe 1959, chapter 4). Of pure noise
    index takes (H - 1) / (L H - 1), near 1 / L, and not 0. Raises InputError where the values cannot be used.
    """
    values = table(values, "the values")
    if np.ptp(values) == 0:
        return TwoWay(0.0, 0.0, 0.0)
    centred = _scaled(values - values.mean())
    of_index, of_layer = centred.mean(0, keepdims=True), centred.mean(1, keepdims=True)
    parts = (np.broadcast_to(of_index, values.shape), np.broadcast_to(of_layer, values.shape), centred - of_index - of_layer)
    squares = [float(np.square(part).sum()) for part in parts]
    index, layer, rest = (each / sum(squares) for each in squares)
    return TwoWay(index, layer, rest)


def correlations(values: Reals) -> Likeness:
    """Pearson r of the layers of (L, H), over indices; a layer of one constant correlates with nothing: r = 0.

    Raises InputError where the values cannot be used.
    """
    return _likeness(_to_norm(_centred(table(values, "the values")), 1.0))


def cosines(field: Reals) -> Likeness:
    """The same with cosines, which see a layer's mean too: of a gradient field (L, H). With a silent layer they are 0."""
    return _likeness(_to_norm(table(field, "the field"), 1.0))


def striation_test(values: Reals, permutations: int = 1000, seed: int = 0) -> StriationTest:
    """Are (L, H) values more striated than the same values with the indices permuted within each layer, independently?

    The null keeps each layer's values and forgets whose they are. It is a weak one: whatever stands in the residual
    stream is striated already, an untouched base's gradients too; `against_field` is the stronger control. Index share
    is of the values as they are given: give `layer_normalised` ones where no layer should outweigh the others.
    p = (1 + number of permutations at least as striated) / (1 + permutations) (Phipson and Smyth 2010). Raises
    InputError where the values cannot be used.
    """
    values = table(values, "the values")
    require_positive(permutations, "permutations")
    centred = _scaled(values - values.mean())
    total = np.square(centred).sum() or 1.0
    units = _to_norm(_centred(values), 1.0)
    scales = np.linalg.norm(_centred(centred), axis=1)
    observed = _striation(units, scales, total)
    generator = np.random.default_rng(seed)
    null = np.array([_striation(generator.permuted(units, axis=1), scales, total) for _ in range(permutations)])
    return StriationTest(_against(observed[0], null[:, 0]), _against(observed[1], null[:, 1]), permutations)


def _striation(units: DoubleArray, scales: DoubleArray, total: float) -> tuple[float, float]:
    """Index share and mean correlation of neighbours, from centred layers of norm 1 (L, H) and their norms (L,)."""
    share = np.square(scales @ units).sum() / (len(units) * total)
    return float(share), float((units[:-1] * units[1:]).sum() / (len(units) - 1))


def _against(observed: float, null: DoubleArray) -> Permuted:
    reached = int((null >= observed - _TIE * abs(observed)).sum())
    return Permuted(observed, float(null.mean()), float(np.percentile(null, 95)), (1 + reached) / (1 + len(null)))


def _likeness(units: DoubleArray) -> Likeness:
    products = units @ units.T
    return Likeness(float(np.diag(products, 1).mean()), float(products[np.triu_indices(len(units), 1)].mean()))


def _centred(values: DoubleArray) -> DoubleArray:
    """Rows less their means; a constant row becomes exactly zero, not the rounding of its mean."""
    return np.where(np.ptp(values, axis=1, keepdims=True) > 0, values - values.mean(1, keepdims=True), 0.0)


def _to_norm(rows: DoubleArray, norm: float) -> DoubleArray:
    """Each row to that Euclidean norm; rows of zeros stay. By the largest first, so that no square underflows."""
    largest = np.abs(rows).max(1, keepdims=True)
    rows = rows / np.where(largest > 0, largest, 1.0)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows * (norm / np.where(norms > 0, norms, 1.0))


def _scaled(values: DoubleArray) -> DoubleArray:
    """By the largest magnitude: shares of squares do not change, and none underflows."""
    largest = np.abs(values).max()
    return values / largest if largest > 0 else values
