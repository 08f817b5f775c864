"""Types that several rooms share. Imports only numpy."""

from collections.abc import Callable
from typing import Any

import numpy as np

FloatArray = np.ndarray[Any, np.dtype[np.float32]]
DoubleArray = np.ndarray[Any, np.dtype[np.float64]]
IntArray = np.ndarray[Any, np.dtype[np.int64]]
Reals = np.ndarray[Any, np.dtype[np.floating[Any]]]  # of any precision
Progress = Callable[[int, int, str], None]  # (done, of, what): how long-running work reports


def unwatched(done: int, of: int, what: str) -> None:
    """The progress of work that nobody watches."""
