"""Many neurons on few columns, without losing a single one. Imports numpy alone: the TUI draws with it."""

import numpy as np

from irm_lite.core.types import FloatArray


def pool_signed_max(values: FloatArray, columns: int) -> FloatArray:
    """(L, H) -> (L, min(H, columns)): of each group of neighbours the value of largest magnitude, with its sign.

    A mean would hide a single neuron among its neighbours; this never does.
    """
    width = values.shape[1]
    if width <= columns:
        return values
    edges = np.arange(columns) * width // columns
    high = np.maximum.reduceat(values, edges, axis=1)
    low = np.minimum.reduceat(values, edges, axis=1)
    return np.where(high >= -low, high, low)


def colour_limit(values: FloatArray, robust: bool = False) -> float:
    """The magnitude that gets full colour: the largest, or the 99.5th percentile where one outlier would drown the rest."""
    if values.size == 0:
        return 1.0
    magnitudes = np.abs(values)
    limit = float(np.percentile(magnitudes, 99.5) if robust else magnitudes.max())
    return limit if limit > 0 else 1.0
