"""How far the base alone foretells which indices an IRM uses: rank correlations with features of the untouched base."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import stats

from irm_lite.analysis.statistics.checks import per_index, require_positive, require_same_shape
from irm_lite.analysis.statistics.holm import holm
from irm_lite.core.bootstrap import RESAMPLES, Interval, interval, resampled_counts
from irm_lite.core.errors import InputError
from irm_lite.core.types import DoubleArray, IntArray, Reals

_CHUNK = 200  # resamples at once: at H = 4096 an array of them is 7 MB
_COLLINEAR = 1e-6  # of the largest singular value


@dataclass(frozen=True)
class Association:
    """Of the importance with one feature: Spearman with its 95% bootstrap interval over indices, and the partial Spearman
    given all other features, with p by Student's t and the same after Holm over the features."""

    spearman: float
    spearman_95: Interval
    partial: float
    partial_p: float
    partial_p_holm: float


@dataclass(frozen=True)
class Explanation:
    """`r2` is the share of the variance of the importance's ranks that a linear regression on all features' ranks explains."""

    features: dict[str, Association]
    r2: float
    adjusted_r2: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def explain(importance: Reals, features: Mapping[str, Reals], bootstraps: int = RESAMPLES, seed: int = 0) -> Explanation:
    """Hold an importance (H,) against features of the base, each (H,) and named.

    A partial Spearman is the correlation of what rank regressions on the other features leave of both sides, tested by t
    with H - 2 - (features - 1) degrees of freedom. It takes away what is linear in ranks alone: a feature that merely echoes
    another kept 0.01, and at H = 4096 was called at the 5% level in 10 of 100 trials: read the size before the p.
    Raises InputError where an array cannot be used, and names features that are constant or follow from each other.
    """
    importance = per_index(importance, "the importance")
    require_positive(bootstraps, "bootstraps")
    if not features:
        raise InputError("there are no features to explain the importance by", "give at least one")
    names, columns = list(features), []
    for name, values in features.items():
        column = per_index(values, f"the feature {name}")
        require_same_shape(column, f"the feature {name}", importance, "the importance")
        columns.append(_varied(column, f"the feature {name}"))
    width, k = len(importance), len(names)
    if width < k + 3:
        raise InputError(f"{k} features are too many for {width} indices", f"give {width - 3} at most")
    ranks = np.stack([_centred_ranks(each) for each in (_varied(importance, "the importance"), *columns)])
    _require_independent(ranks[1:], names)
    norms = np.linalg.norm(ranks, axis=1)
    rho = ranks[1:] @ ranks[0] / (norms[1:] * norms[0])
    r2 = 1 - float(np.square(_left_by(ranks[1:], ranks[0])).sum() / norms[0] ** 2)
    freedom = width - 1 - k
    partial = np.array([_partial(ranks, feature) for feature in range(1, 1 + k)])
    with np.errstate(divide="ignore"):  # a perfect correlation has an infinite t, and p = 0
        p = 2 * stats.t.sf(np.abs(partial) * np.sqrt(freedom / (1 - np.square(partial))), freedom)
    adjusted = holm(p)
    drawn = _resampled_spearman(ranks, bootstraps, seed)
    found = {
        name: Association(float(rho[i]), interval(drawn[i]), float(partial[i]), float(p[i]), float(adjusted[i]))
        for i, name in enumerate(names)
    }
    return Explanation(found, r2, 1 - (1 - r2) * (width - 1) / freedom)


def _varied(values: DoubleArray, what: str) -> DoubleArray:
    if np.ptp(values) == 0:
        raise InputError(f"{what} is the same for every index", "leave it out")
    return values


def _centred_ranks(values: DoubleArray) -> DoubleArray:
    """Mid-ranks less their mean (H + 1) / 2."""
    ranks: DoubleArray = stats.rankdata(values) - (len(values) + 1) / 2
    return ranks


def _require_independent(ranks: DoubleArray, names: list[str]) -> None:
    """Features (k, H) of which one follows from others have no partial correlations: the null space names them."""
    _, singular, directions = np.linalg.svd((ranks / np.linalg.norm(ranks, axis=1, keepdims=True)).T, full_matrices=False)
    null = directions[singular < _COLLINEAR * singular[0]]
    if len(null):
        tied = ", ".join(name for name, weights in zip(names, null.T, strict=True) if np.abs(weights).max() > _COLLINEAR)
        raise InputError(f"the ranks of these features follow from each other: {tied}", "leave one of them out")


def _left_by(others: DoubleArray, ranks: DoubleArray) -> DoubleArray:
    """Residuals (H,) of the least-squares regression of centred ranks (H,) on others (k, H)."""
    left: DoubleArray = ranks - np.linalg.lstsq(others.T, ranks, rcond=None)[0] @ others
    return left


def _partial(ranks: DoubleArray, feature: int) -> float:
    """Of the importance, row 0 of ranks (1 + k, H), with the feature, given the other rows."""
    others = np.delete(ranks, [0, feature], axis=0)
    a, b = _left_by(others, ranks[0]), _left_by(others, ranks[feature])
    if np.linalg.norm(a) <= _COLLINEAR * np.linalg.norm(ranks[0]):
        return 0.0  # the others explain all there is
    return float(np.clip(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)), -1, 1))


def _resampled_spearman(ranks: DoubleArray, resamples: int, seed: int) -> DoubleArray:
    """Spearman of row 0 of (1 + k, H) with each other row over indices drawn with replacement, ranked anew: (k, resamples).

    A resample in which one of the two is constant correlates with nothing: 0.
    """
    counts, chunks = resampled_counts(ranks.shape[1], resamples, seed), []
    for start in range(0, resamples, _CHUNK):
        drawn = counts[start : start + _CHUNK]
        importance, *features = (_ranks_of_drawn(each, drawn) for each in ranks)
        squares = [(drawn * np.square(each)).sum(1) for each in (importance, *features)]
        norms = [np.sqrt(np.maximum(squares[0] * each, 1.0)) for each in squares[1:]]
        products = [(drawn * importance * each).sum(1) for each in features]
        chunks.append([product / norm for product, norm in zip(products, norms, strict=True)])
    return np.concatenate(chunks, axis=1)


def _ranks_of_drawn(values: DoubleArray, counts: IntArray) -> DoubleArray:
    """Centred mid-ranks (B, H) of values (H,) that are drawn as often as `counts` (B, H) says. Nothing is sorted again."""
    order = np.argsort(values, kind="stable")
    starts = np.flatnonzero(np.diff(values[order], prepend=-np.inf))
    sizes = np.add.reduceat(counts[:, order], starts, axis=1)  # of each group of equal values
    middle = np.cumsum(sizes, axis=1) - (sizes - 1) / 2 - (len(values) + 1) / 2
    group = np.empty(len(values), dtype=np.int64)
    group[order] = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(values)))
    ranks: DoubleArray = middle[:, group]
    return ranks
