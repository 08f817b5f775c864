"""Indices ranked by importance, and the ranks of several runs compared."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np
from scipy import stats

from irm_lite.analysis.statistics.checks import require_level, table
from irm_lite.analysis.statistics.holm import holm
from irm_lite.core.errors import InputError
from irm_lite.core.types import DoubleArray, IntArray, Reals


@dataclass(frozen=True)
class TwoRuns:
    """Two runs, by their place: Spearman of all indices, and how many of the k most important they share.

    `expected` is the overlap under chance, k^2 / H; `overlap_p` that of at least this overlap (hypergeometric).
    """

    runs: tuple[int, int]
    spearman: float
    spearman_p: float
    overlap: int
    expected: float
    overlap_p: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Common:
    """`indices` are among the top k of more runs than chance allows, the most frequent first, then by median rank.

    Of all indices (H,): `counts`, the runs that have it among their top k; `median_rank` and `worst_rank` (1 is the top);
    and p, adjusted.
    """

    indices: list[int]
    counts: IntArray
    median_rank: DoubleArray
    worst_rank: DoubleArray
    p: DoubleArray
    runs: int
    k: int
    alpha: float

    @property
    def in_all(self) -> list[int]:
        """Those that are among the top k of every run."""
        return [index for index in self.indices if self.counts[index] == self.runs]

    def to_dict(self) -> dict[str, Any]:
        """Of the common indices alone."""
        return {
            "indices": self.indices,
            "in_all": self.in_all,
            "counts": self.counts[self.indices].tolist(),
            "median_rank": self.median_rank[self.indices].tolist(),
            "worst_rank": self.worst_rank[self.indices].tolist(),
            "p": self.p[self.indices].tolist(),
            "runs": self.runs,
            "k": self.k,
            "alpha": self.alpha,
        }


def importance(mean_abs: Reals) -> DoubleArray:
    """Mean |output| (L, H) -> (H,): each layer scaled to unit mean, then averaged, so that late layers do not drown the rest.

    1 is an average index; silent layers do not count. Raises InputError where a magnitude is negative or all are zero.
    """
    mean_abs = table(mean_abs, "the mean magnitudes", least=1)
    if (mean_abs < 0).any():
        raise InputError("a mean magnitude is negative", "give means of |output|, not of outputs")
    means = mean_abs.mean(1, keepdims=True)
    heard = means[:, 0] > 0
    if not heard.any():
        raise InputError("the IRM is silent in every layer", "train it first")
    ranked: DoubleArray = (mean_abs[heard] / means[heard]).mean(0)
    return ranked


def compare_runs(importances: Reals, k: int) -> list[TwoRuns]:
    """Each two of R runs' importances (R, H); of equal indices at the edge of the top k the lower are taken.

    Both p take indices for exchangeable. Runs on one base share its loud indices, so a small p says that the runs
    agree, not that the tone is why: see `common`. Raises InputError where the importances or k cannot be used.
    """
    importances = _of_runs(importances)
    _require_top(k, importances.shape[1])
    return list(_pairs(importances, k))


def common(importances: Reals, k: int, alpha: float = 0.05) -> Common:
    """Indices that are among the top k of many of R runs' importances (R, H).

    The statistic is m, the number of runs that have an index among their top k: p is the upper tail of Binomial(R, k / H),
    that of independent uniform ranks, Holm over the H indices; equal importances all take the worst of their ranks.
    Independence is what a common index is tested against, and runs on one base are not independent: they share that base,
    and with one seed the weights that they started from. A common index may be the base's, not the tone's: the neutral
    runs (`tone_effect`) and the base's own features (`explain`) are the controls. Raises InputError where the importances
    cannot be used.
    """
    importances = _of_runs(importances)
    _require_top(k, importances.shape[1])
    require_level(alpha)
    ranks: DoubleArray = stats.rankdata(-importances, method="max", axis=1)
    counts: IntArray = (ranks <= k).sum(0)
    runs, width = importances.shape
    p = holm(stats.binom.sf(counts - 1, runs, k / width))
    median, worst = np.median(ranks, axis=0), ranks.max(0)
    indices = np.flatnonzero(p <= alpha)
    order = np.lexsort((median[indices], -counts[indices]))
    return Common(indices[order].tolist(), counts, median, worst, p, runs, k, alpha)


def _pairs(importances: DoubleArray, k: int) -> Iterator[TwoRuns]:
    width = importances.shape[1]
    tops = [set(np.argsort(-each, kind="stable")[:k].tolist()) for each in importances]
    for a, b in combinations(range(len(importances)), 2):
        rank = stats.spearmanr(importances[a], importances[b])
        overlap = len(tops[a] & tops[b])
        p = float(stats.hypergeom.sf(overlap - 1, width, k, k))
        yield TwoRuns((a, b), float(rank.statistic), float(rank.pvalue), overlap, k * k / width, p)


def _require_top(k: int, width: int) -> None:
    if not 1 <= k <= width:
        raise InputError(f"the top {k} of {width} indices is not a choice", f"give a k from 1 to {width}")


def _of_runs(importances: Reals) -> DoubleArray:
    importances = table(importances, "the importances", rows="runs")
    for run, values in enumerate(importances):
        if np.ptp(values) == 0:
            raise InputError(f"run {run} gives every index the same importance", "leave it out")
    return importances
