"""What no statistic can be made of is refused in one line."""

from collections.abc import Iterable

import numpy as np

from irm_lite.core.errors import InputError
from irm_lite.core.types import DoubleArray, Reals

LEAST_INDICES = 8
_LARGEST = float(np.finfo(np.float32).max)  # recordings are float32; what is larger would overflow when squared


def table(values: Reals, what: str, rows: str = "layers", least: int = 2) -> DoubleArray:
    """`values` as float64, (rows, H): at least `least` rows and LEAST_INDICES indices, all finite. Raises InputError."""
    if values.ndim != 2:
        raise InputError(f"{what} of shape {values.shape} cannot be used", f"give {rows} x indices")
    if len(values) < least:
        raise InputError(f"{len(values)} {rows} in {what} are too few", f"give at least {least}")
    _require_indices(values, what)
    return _finite(values, what)


def per_index(values: Reals, what: str) -> DoubleArray:
    """`values` as float64, (H,): at least LEAST_INDICES, all finite. Raises InputError."""
    if values.ndim != 1:
        raise InputError(f"{what} of shape {values.shape} cannot be used", "give one number an index")
    _require_indices(values, what)
    return _finite(values, what)


def require_same_shape(values: Reals, what: str, others: Reals, than: str) -> None:
    if values.shape != others.shape:
        raise InputError(
            f"{what} of shape {values.shape} and {than} of {others.shape} do not fit", "take both from one base and the same layers"
        )


def require_index_range(indices: Iterable[int], hidden_size: int) -> None:
    for index in indices:
        if not 0 <= index < hidden_size:
            raise InputError(f"there is no index {index}", f"the hidden size is {hidden_size}: give 0 to {hidden_size - 1}")


def require_seed(seed: int) -> None:
    if seed < 0:
        raise InputError(f"--seed {seed} makes no sense", "give at least 0")


def require_positive(count: int, what: str) -> None:
    if count < 1:
        raise InputError(f"{count} {what} are too few", "take 1000 or more")


def require_level(alpha: float) -> None:
    if not 0 < alpha < 1:
        raise InputError(f"alpha is {alpha:g}", "give a level between 0 and 1, such as 0.05")


def _require_indices(values: Reals, what: str) -> None:
    if values.shape[-1] < LEAST_INDICES:
        raise InputError(f"{values.shape[-1]} indices in {what} are too few", f"give at least {LEAST_INDICES}")


def _finite(values: Reals, what: str) -> DoubleArray:
    doubles: DoubleArray = values.astype(np.float64)
    if not (np.abs(doubles) <= _LARGEST).all():
        raise InputError(f"NaN, infinity or numbers beyond float32 in {what}", "record again, or leave those layers out")
    return doubles
