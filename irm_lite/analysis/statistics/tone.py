"""Which indices the runs of some data use more, or less, than the runs of others: is it the tone?"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from irm_lite.analysis.statistics.checks import require_level, require_positive, table
from irm_lite.core.errors import InputError
from irm_lite.core.types import DoubleArray, Reals


@dataclass(frozen=True)
class ToneEffect:
    """`indices` differ, the most different first. `difference` (H,): mean rank in the other runs less that in the chosen
    ones, over the hidden size, so that above 0 the chosen ones use the index more; `p` (H,) is familywise adjusted."""

    indices: list[int]
    difference: DoubleArray
    p: DoubleArray
    blocks: int
    alpha: float

    def to_dict(self) -> dict[str, Any]:
        """Of the indices that differ alone, and the largest difference of all."""
        return {
            "indices": self.indices,
            "difference": self.difference[self.indices].tolist(),
            "p": self.p[self.indices].tolist(),
            "largest": float(np.abs(self.difference).max()),
            "least_p": float(self.p.min()),
            "blocks": self.blocks,
            "alpha": self.alpha,
        }


def tone_effect(
    importances: Reals,
    chosen: Sequence[bool],
    blocks: Sequence[str],
    permutations: int = 2000,
    alpha: float = 0.05,
    seed: int = 0,
) -> ToneEffect:
    """Of R runs' importances (R, H): do the `chosen` runs rank an index otherwise than the others of the same block?

    A block is what runs share beside their data: layers, site, penalty. The statistic is the difference of mean ranks
    within each block, averaged over the blocks that have runs of both kinds. Null: which runs of a block are chosen is
    arbitrary, so the labels are permuted within each block, and the largest |difference| of all indices is kept (max-T,
    Westfall and Young 1993; blocks as in Edgington 1995): the chance of any false find is at most `alpha`. Raises
    InputError where no block has both kinds, or where the arrays cannot be used.
    """
    importances = table(importances, "the importances", rows="runs")
    require_positive(permutations, "permutations")
    require_level(alpha)
    width = importances.shape[1]
    labels, names = np.asarray(chosen, dtype=bool), np.asarray(blocks)
    if not len(labels) == len(names) == len(importances):
        raise InputError(f"{len(importances)} runs have {len(labels)} labels and {len(names)} blocks", "give one of each a run")
    ranks: DoubleArray = stats.rankdata(-importances, axis=1) / width
    groups = [np.flatnonzero(names == name) for name in dict.fromkeys(blocks)]
    groups = [group for group in groups if labels[group].any() and not labels[group].all()]
    if not groups:
        raise InputError("no block has runs of both kinds", "give runs of equal settings on both")
    generator = np.random.default_rng(seed)
    difference = _difference(ranks, groups, [labels[group] for group in groups])
    largest = np.empty(permutations)
    for number in range(permutations):
        permuted = [generator.permutation(labels[group]) for group in groups]
        largest[number] = np.abs(_difference(ranks, groups, permuted)).max()
    largest.sort()
    reached = permutations - np.searchsorted(largest, np.abs(difference) * (1 - 1e-12))
    p = (1 + reached) / (1 + permutations)
    indices = np.flatnonzero(p <= alpha)
    return ToneEffect(indices[np.argsort(-np.abs(difference[indices]), kind="stable")].tolist(), difference, p, len(groups), alpha)


def _difference(ranks: DoubleArray, groups: Sequence[Any], labels: Sequence[Any]) -> DoubleArray:
    """Mean over the blocks of the others' mean rank less the chosen ones', (H,)."""
    of_blocks = [ranks[group[~label]].mean(0) - ranks[group[label]].mean(0) for group, label in zip(groups, labels, strict=True)]
    difference: DoubleArray = np.mean(of_blocks, axis=0)
    return difference
