"""How far a temperature for each token explains what an intervention does, against what it explains of others."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from irm_lite.core.bootstrap import Interval, interval, resampled_sums
from irm_lite.core.types import DoubleArray


@dataclass(frozen=True)
class SharpnessShare:
    """`explained`: the share of KL(changed || not) that the temperatures take away, 1 where nothing but sharpness changed; with a
    95% bootstrap interval over samples. `rank`: 1 where no control's share reaches it; p = rank / (1 + controls), one-sided, where
    controls that broke the model count as reaching it."""

    explained: float
    explained_95: Interval
    controls_explained: float  # median
    controls_explained_95: Interval  # 2.5th and 97.5th percentile
    explained_rank: int
    explained_p: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def sharpness_share(own: DoubleArray, controls: DoubleArray, seed: int = 0, broken: int = 0) -> SharpnessShare:
    """`own` (N, 2): sums over each sample's tokens of that KL, and of what the temperatures leave of it; `controls` (C, N, 2), and
    `broken` more without a number."""
    each = np.array([_share(control.sum(0)) for control in controls])
    explained = _share(own.sum(0))
    drawn = resampled_sums(own, seed)
    rank = 1 + broken + int((each >= explained).sum())
    low, median, high = np.percentile(each, (2.5, 50, 97.5))
    return SharpnessShare(
        explained,
        interval(np.array([_share(sums) for sums in drawn])),
        float(median),
        (float(low), float(high)),
        rank,
        rank / (1 + len(each) + broken),
    )


def _share(sums: DoubleArray) -> float:
    """0 where nothing changed."""
    return 1 - float(sums[1] / sums[0]) if sums[0] > 1e-12 else 0.0
