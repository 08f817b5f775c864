"""Statistics of IRM outputs over any number of tokens, in constant memory."""

import numpy as np
import torch
from torch import Tensor

from irm_lite.analysis.recordings.recording import NEAR_ZERO, Statistics

_AT_ONCE = 1 << 21  # floats worked on together (8 MiB): the temporaries stay in the cache


class Running:
    """Add outputs (T, L, H) as they come; `statistics` at any time.

    Means and squared deviations are merged batch by batch in float64 (Chan, Golub, LeVeque 1983), since sums of squares
    would cancel where an index hardly varies.
    """

    def __init__(self, n_layers: int, hidden_size: int, top: int = 10) -> None:
        shape = (n_layers, hidden_size)
        self.tokens = 0
        self.top = min(top, hidden_size)
        self._mean, self._mean_abs, self._deviations = (torch.zeros(shape, dtype=torch.float64) for _ in range(3))
        self._minimum, self._maximum = torch.full(shape, torch.inf), torch.full(shape, -torch.inf)
        self._near_zero = torch.zeros(n_layers, dtype=torch.int64)
        self._in_top, self._largest_in_layer, self._largest_of_all = (torch.zeros(shape, dtype=torch.int64) for _ in range(3))

    def add(self, outputs: Tensor) -> None:
        """Outputs (T, L, H) of T more tokens, of any device and number format."""
        step = max(1, _AT_ONCE // (outputs.shape[1] * outputs.shape[2]))
        for start in range(0, len(outputs), step):
            self._add(outputs[start : start + step].detach().float().cpu())

    def _add(self, part: Tensor) -> None:
        count, magnitude = len(part), part.abs()
        total = self.tokens + count
        mean = part.mean(0)
        delta = mean.double() - self._mean
        self._deviations += (part - mean).square_().sum(0).double() + delta.square() * (self.tokens * count / total)
        self._mean += delta * (count / total)
        self._mean_abs += (magnitude.mean(0).double() - self._mean_abs) * (count / total)
        self._minimum = torch.minimum(self._minimum, part.amin(0))
        self._maximum = torch.maximum(self._maximum, part.amax(0))
        self._near_zero += (magnitude < NEAR_ZERO).sum((0, 2))
        largest = magnitude.topk(self.top, dim=-1)  # sorted, the largest first
        for counts, indices in ((self._in_top, largest.indices), (self._largest_in_layer, largest.indices[..., :1])):
            by_layer = indices.transpose(0, 1).flatten(1)  # (L, T k)
            counts.scatter_add_(1, by_layer, torch.ones_like(by_layer))
        layer = largest.values[..., 0].argmax(1)  # (T,)
        index = largest.indices[torch.arange(count), layer, 0]
        self._largest_of_all.index_put_((layer, index), torch.ones_like(index), accumulate=True)
        self.tokens = total

    @property
    def statistics(self) -> Statistics:
        """What there is so far, as arrays of its own."""
        hidden_size = self._mean.shape[1]
        return Statistics(
            tokens=self.tokens,
            mean=self._mean.numpy().copy(),
            mean_abs=self._mean_abs.numpy().copy(),
            deviations=self._deviations.numpy().copy(),
            minimum=self._minimum.numpy().copy(),
            maximum=self._maximum.numpy().copy(),
            near_zero=self._near_zero.numpy() / np.float64(max(self.tokens, 1) * hidden_size),
            in_top=self._in_top.numpy().copy(),
            largest_in_layer=self._largest_in_layer.numpy().copy(),
            largest_of_all=self._largest_of_all.numpy().copy(),
            top=self.top,
        )
