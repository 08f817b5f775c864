"""A vector beside a map whose output is normalised before it reaches the stream: Gemma 2 and 3, OLMo 2, GLM 4, EXAONE 4.

Such a block adds g n to the stream: n = y / r, y = W x being what its last map puts out, r = sqrt(mean y^2 + epsilon), g the norm's
gain. With s B (A x) beside the map the norm reads y + s B (A x) = r (n + s q B), q = A x / r, whose own r is r p with

    p^2 = 1 + 2 s q <n, B> + s^2 q^2 <B, B>        <a, b>: the mean over channels of a b

so that g (n + s q B) / p reaches the stream. What that is to be is g n + s v: A predicts r, and B is v by the gain.
"""

from dataclasses import dataclass

import numpy as np

from irm_lite.core.types import DoubleArray, FloatArray

FLOORS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)  # shares of the gains' rms
_IN_THE_LIMIT = 1e-4  # a text that is read at strength 0 tells what a small strength adds


@dataclass(frozen=True)
class PostNorm:
    """The norm behind a block's last map: its gain (H,), as it multiplies, and what it adds under the root."""

    gain: FloatArray
    epsilon: float

    def sizes(self, outputs: FloatArray) -> FloatArray:
        """What it divides each token of outputs (T, H) by, (T,)."""
        sizes: FloatArray = np.sqrt(np.square(outputs, dtype=np.float64).mean(1) + self.epsilon).astype(np.float32)
        return sizes

    def before(self, direction: FloatArray, floor: float) -> FloatArray:
        """B (H,), which the gain makes `direction` of. Where a gain is well below `floor` times the gains' rms it makes less of it:
        v / g of such a channel would be large, and what is large in one channel makes all others small."""
        gain = self.gain.astype(np.float64)
        least = floor**2 * np.mean(np.square(gain))
        before: FloatArray = (direction * gain / np.maximum(np.square(gain) + least, np.finfo(np.float64).tiny)).astype(np.float32)
        return before

    def added(self, normed: FloatArray, predicted: FloatArray, before: FloatArray, strengths: FloatArray) -> DoubleArray:
        """What reaches the stream beyond g n, a unit of strength, (T, H). Of each token: `normed` n (T, H), `predicted` q (T,),
        `strengths` s (T,); B is `before` (H,)."""
        n, b = normed.astype(np.float64), before.astype(np.float64)
        s = np.where(strengths == 0, _IN_THE_LIMIT, strengths.astype(np.float64))
        step = s * predicted
        p = np.sqrt(1 + 2 * step * (n @ b) / len(b) + np.square(step) * np.mean(np.square(b)))
        added: DoubleArray = self.gain * (n * ((1 - p) / p / s)[:, None] + b * (predicted / p)[:, None])
        return added


@dataclass(frozen=True)
class Behind:
    """What reaches the stream beside what should: by token, the share of v's power that is missed or too much, (T,), and how many
    times v is in it, (T,)."""

    errors: DoubleArray
    given: DoubleArray


def behind(added: DoubleArray, direction: FloatArray) -> Behind:
    """Of what is added (T, H) for a direction v (H,)."""
    v = direction.astype(np.float64)
    power = max(float(v @ v), np.finfo(np.float64).tiny)
    return Behind(np.square(added - v).sum(1) / power, added @ v / power)
