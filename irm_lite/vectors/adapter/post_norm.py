"""A vector beside a map whose output is normalised before it reaches the stream: Gemma 2 and 3, OLMo 2, GLM 4, EXAONE 4.

Such a block adds g n to the stream: n = y / r, y = W x being what its last map puts out, r = sqrt(mean y^2 + epsilon), g the norm's
gain. With s B (A x) beside the map the norm reads y + s B (A x) = r (n + s q B), q = A x / r, whose own r is r p with

    p^2 = 1 + 2 s q <n, B> + s^2 q^2 <B, B>        <a, b>: the mean over channels of a b

so that g (n + s q B) / p reaches the stream. What that is to be is g n + s v: A predicts r, and B is v by the gain.

Errors count as the next norm reads them, channel by channel times its gain: some channels hold little of a vector's power, reach
the stream by a gain next to nothing, and are read by a large one.
"""

from dataclasses import dataclass

import numpy as np

from irm_lite.core.types import DoubleArray, FloatArray

FLOORS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)  # shares of the rms of gains times those that read
_IN_THE_LIMIT = 1e-4  # a text that is read at strength 0 tells what a small strength adds


@dataclass(frozen=True)
class PostNorm:
    """The norm behind a block's last map: its gain (H,), as it multiplies, what it adds under the root, and the gain of the norm
    that reads the stream next, (H,): ones where there is none."""

    gain: FloatArray
    epsilon: float
    read_by: FloatArray

    def sizes(self, outputs: FloatArray) -> FloatArray:
        """What it divides each token of outputs (T, H) by, (T,)."""
        sizes: FloatArray = np.sqrt(np.square(outputs, dtype=np.float64).mean(1) + self.epsilon).astype(np.float32)
        return sizes

    def before(self, direction: FloatArray, floor: float) -> FloatArray:
        """B (H,), which the gain makes `direction` of: least squares as it is read, with a penalty on B. Without one v / g would be
        all of B in a channel of a gain next to nothing, and what is large in one channel makes all others small."""
        gain, reads = self.gain.astype(np.float64), np.square(self.read_by.astype(np.float64))
        power = reads * np.square(gain)
        least = max(floor**2 * float(np.mean(power)), np.finfo(np.float64).tiny)
        before: FloatArray = (direction * reads * gain / (power + least)).astype(np.float32)
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

    def behind(self, added: DoubleArray, direction: FloatArray) -> "Behind":
        """What of a direction v (H,) is in what is added (T, H), as it is read."""
        reads = self.read_by.astype(np.float64)
        v, there = reads * direction, reads * added
        power = max(float(v @ v), np.finfo(np.float64).tiny)
        return Behind(np.square(there - v).sum(1) / power, there @ v / power)


@dataclass(frozen=True)
class Behind:
    """What reaches the stream beside what should: by token, the share of v's power that is missed or too much, (T,), and how many
    times v is in it, (T,)."""

    errors: DoubleArray
    given: DoubleArray
