"""Which indices of one run stand out in all of its layers together."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from irm_lite.analysis.statistics.checks import require_level, require_positive, table
from irm_lite.analysis.statistics.striations import layer_normalised
from irm_lite.core.errors import InputError
from irm_lite.core.types import DoubleArray, Reals

_ROUNDS = 3  # what hides behind the loudest indices shows in the second; stopping early only finds fewer


@dataclass(frozen=True)
class Prominence:
    """`indices` stand out, the most prominent first; `statistic` and the familywise adjusted `p` (H,) are of all indices."""

    indices: list[int]
    statistic: DoubleArray
    p: DoubleArray
    alpha: float

    def to_dict(self) -> dict[str, Any]:
        """Of the prominent indices alone."""
        return {
            "indices": self.indices,
            "statistic": self.statistic[self.indices].tolist(),
            "p": self.p[self.indices].tolist(),
            "alpha": self.alpha,
        }


def prominent(values: Reals, permutations: int = 1000, alpha: float = 0.05, seed: int = 0) -> Prominence:
    """The indices of (L, H) values whose mean over layers of |v| / layer's RMS is larger than chance allows.

    Null: the largest such mean over all indices when indices are permuted within each layer, independently (max-T,
    Westfall and Young 1993): the chance of any false find in the run is at most `alpha`. What is found is set aside and
    the rest is permuted anew, _ROUNDS times at most (step-down; Goeman and Solari 2010): the values of one loud index,
    scattered by the permutations, would hide the others. What is large in a few layers alone does not stand out. Raises
    InputError where the values cannot be used, or where so few permutations cannot reach `alpha`.
    """
    values = table(values, "the values")
    require_positive(permutations, "permutations")
    require_level(alpha)
    if alpha * (1 + permutations) < 1:
        raise InputError(f"{permutations} permutations cannot reach alpha {alpha:g}", f"take {int(np.ceil(1 / alpha))} or more")
    magnitudes = np.abs(layer_normalised(values))
    statistic, p = magnitudes.mean(0), np.ones(values.shape[1])
    generator = np.random.default_rng(seed)
    rest, floor = np.arange(values.shape[1]), 0.0
    for _ in range(_ROUNDS):
        tested = magnitudes[:, rest]
        largest = np.sort([generator.permuted(tested, axis=1).mean(0).max() for _ in range(permutations)])
        reached = permutations - np.searchsorted(largest, statistic[rest] * (1 - 1e-12))
        p[rest] = np.maximum((1 + reached) / (1 + permutations), floor)
        found = p[rest] <= alpha
        if not found.any():
            break
        floor, rest = p[rest[found]].max(), rest[~found]
    indices = np.flatnonzero(p <= alpha)
    return Prominence(indices[np.argsort(-statistic[indices], kind="stable")].tolist(), statistic, p, alpha)
