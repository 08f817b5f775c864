"""Many tests at once: p-values that hold for the whole family."""

import numpy as np

from irm_lite.core.types import DoubleArray


def holm(p: DoubleArray) -> DoubleArray:
    """Familywise adjusted p-values (n,), valid under any dependence (Holm 1979, Scandinavian Journal of Statistics 6)."""
    n, order = len(p), np.argsort(p, kind="stable")
    adjusted = np.empty(n)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(n, 0, -1)), 1.0)
    return adjusted
