"""Does a change of a distribution change anything but its sharpness? A temperature fitted to each token, and what it leaves."""

import math
from dataclasses import dataclass

import numpy as np

from irm_lite.core.types import DoubleArray, Reals

_LARGEST = 64.0  # of an inverse temperature, and the least is one over it
_STEPS, _ENOUGH = 60, 1e-10


@dataclass(frozen=True)
class Sharpness:
    """Of each of A tokens: the inverse temperature that brings the old distribution nearest to the new one, KL(new || old) without
    it and with it, nats."""

    inverse: DoubleArray
    before: DoubleArray
    after: DoubleArray

    @property
    def explained(self) -> float:
        """The share of the summed KL that the temperatures take away: 1 where nothing but sharpness changed."""
        total = float(self.before.sum())
        return 1 - float(self.after.sum()) / total if total > 0 else 0.0


def sharpness(old: Reals, new: Reals) -> Sharpness:
    """Fit b >= 0 in softmax(b * old) to `new`, both log-probabilities (A, V), each token alone, by KL(new || softmax(b * old)).

    That KL is convex in b, its derivatives are E_b[old] - E_new[old] and Var_b[old]: Newton's steps, kept in a bracket from 1/64
    to 64.
    """
    found = [_fit(np.asarray(one, np.float64), np.asarray(other, np.float64)) for one, other in zip(old, new, strict=True)]
    inverse, before, after = (np.array(column) for column in zip(*found, strict=True)) if found else (np.zeros(0),) * 3
    return Sharpness(inverse, before, after)


def _fit(old: DoubleArray, new: DoubleArray) -> tuple[float, float, float]:
    """b, KL(new || old) and KL(new || softmax(b * old)), which is E[new] - b E[old] + log Z(b), means under `new`."""
    p = np.exp(new)
    wanted, own, mass = float(p @ old), float(p @ new), float(p.sum())
    top, squares = float(old.max()), np.square(old)
    low, high, at = 1 / _LARGEST, _LARGEST, 1.0
    kls = []
    for _ in range(_STEPS):
        q = np.exp(at * (old - top))
        total = float(q.sum())
        kls.append(own - at * wanted + mass * (at * top + math.log(total)))
        mean = float(q @ old) / total
        if abs(mean - wanted) < _ENOUGH:
            break
        low, high = (at, high) if mean < wanted else (low, at)  # E_b[old] rises with b
        spread = float(q @ squares) / total - mean**2
        step = at + (wanted - mean) / spread if spread > 0 else 0.0
        at = step if low < step < high else (low + high) / 2
    return at, kls[0], kls[-1]
