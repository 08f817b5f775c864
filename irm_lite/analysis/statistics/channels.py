"""Of a gradient field in parts: which way the gradient of single indices goes, and that of the loud ones and the strong ones."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from irm_lite.analysis.statistics.ranking import importance
from irm_lite.core.types import DoubleArray, FloatArray, Reals

DIRECT, FINAL, BLOCKS = "direct", "final norm", "block norms"
STRONGEST, LOUDEST = 5, 3  # that are shown


def described_channels(parts: Mapping[str, FloatArray], loudness: Reals, marks: Sequence[int]) -> dict[str, Any]:
    """`parts` (L, H) of a field: DIRECT, and FINAL and BLOCKS, what goes through those norms' denominators. `loudness` (H,).

    Gives "channels": of the marked indices, the STRONGEST by gradient and the LOUDEST the shares of the parts, "scale" (the
    denominators' together) with its rank, gradient (importance: 1 is an average index) and loudness with their ranks;
    "total": the parts' shares of the whole field; "through_scale": the part of all indices whose scale share is a half or more;
    "spearman": the loudness against the gradient, its direct part and its scale part.
    """
    shares = index_shares(parts)
    scale = shares[FINAL] + shares[BLOCKS]
    strength = importance(np.abs(_sum(parts.values())))
    places = {"scale": _places(scale), "gradient": _places(strength), "loudness": _places(loudness)}
    by_strength, by_loudness = np.argsort(-strength, kind="stable")[:STRONGEST], np.argsort(-loudness, kind="stable")[:LOUDEST]
    why: dict[int, list[str]] = {}
    for chosen, reason in ((marks, "marked"), (by_loudness, "loud"), (by_strength, "strong")):
        for index in chosen:
            why.setdefault(int(index), []).append(reason)
    channels = [
        {
            "index": index,
            "why": reasons,
            **{name: float(share[index]) for name, share in shares.items()},
            "scale": float(scale[index]),
            "scale_rank": int(places["scale"][index]),
            "gradient": float(strength[index]),
            "gradient_rank": int(places["gradient"][index]),
            "loudness": float(loudness[index]),
            "loudness_rank": int(places["loudness"][index]),
        }
        for index, reasons in why.items()
    ]
    ways = {"gradient": parts.values(), "direct": [parts[DIRECT]], "scale": [parts[FINAL], parts[BLOCKS]]}
    return {
        "indices": len(loudness),
        "channels": channels,
        "total": total_shares(parts),
        "through_scale": float((scale >= 0.5).mean()),
        "spearman": {name: _spearman(loudness, np.abs(_sum(way)).mean(0)) for name, way in ways.items()},
    }


def index_shares(parts: Mapping[str, FloatArray]) -> dict[str, DoubleArray]:
    """How much of each index's gradient each part (L, H) makes, (H,): <part, whole> / <whole, whole> over the layers. They sum to
    1; a part that goes against the whole has a negative share. 0 for an index without a gradient."""
    whole = _sum(parts.values())
    power = np.square(whole).sum(0)
    return {
        name: np.divide((part * whole).sum(0), power, out=np.zeros_like(power), where=power > 0) for name, part in parts.items()
    }


def total_shares(parts: Mapping[str, FloatArray]) -> dict[str, float]:
    """The same of the whole field at once."""
    whole = _sum(parts.values())
    power = float(np.square(whole).sum())
    return {name: float((part * whole).sum()) / power if power > 0 else 0.0 for name, part in parts.items()}


def _sum(parts: Any) -> DoubleArray:
    found: DoubleArray = np.sum([part.astype(np.float64) for part in parts], axis=0)
    return found


def _places(values: Reals) -> Any:
    """(H,), 1: the largest."""
    places = np.empty(len(values), int)
    places[np.argsort(-values, kind="stable")] = np.arange(1, len(values) + 1)
    return places


def _spearman(one: Reals, other: Reals) -> float | None:
    """None where one of them is the same for all indices."""
    from scipy.stats import spearmanr

    return float(spearmanr(one, other).statistic) if np.ptp(one) > 0 and np.ptp(other) > 0 else None
