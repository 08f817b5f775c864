"""What steers, layer by index, small enough to be sent: of each stretch of indices the strongest value."""

from typing import Any

import numpy as np

from irm_lite.steering.layers import format_layers

_STRETCHES = 192
_LARGEST = 1e30  # of what is sent


def picture(directions: dict[int, Any]) -> dict[str, Any] | None:
    """`layers`, and `rows`: of what each of them adds (H,) the value of largest magnitude, with its sign, in at most 192 stretches
    (a mean would hide a single neuron); of no layers None."""
    if not directions:
        return None
    values = np.clip(np.nan_to_num(np.stack(list(directions.values())).astype(np.float64)), -_LARGEST, _LARGEST)
    size = values.shape[1]
    stretches = min(_STRETCHES, size)
    starts = np.arange(stretches) * size // stretches
    most, least = (each.reduceat(values, starts, axis=1) for each in (np.maximum, np.minimum))
    strongest = np.where(most >= -least, most, least)
    return {"layers": format_layers(directions), "rows": [[round(each, 4) for each in row] for row in strongest.tolist()]}
