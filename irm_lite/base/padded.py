"""Rows for models that cannot keep packed samples apart, the recurrent ones: padded at the end, where nothing looks back from.

Everything outside the blocks stays in the packed row's order, (1, T, H); what hooks see inside them is (samples, longest, H).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from weakref import WeakKeyDictionary, WeakSet

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Padding:
    """Where a packed row's tokens stand among padded samples: `places` (T,) into samples * `longest`."""

    places: Tensor
    samples: int
    longest: int

    @classmethod
    def of(cls, lengths: Tensor) -> "Padding":
        """For samples of these lengths (samples,)."""
        longest = int(lengths.max())
        inside = torch.arange(longest) < lengths.cpu()[:, None]
        return cls(inside.flatten().nonzero()[:, 0], len(lengths), longest)

    def spread(self, row: Tensor) -> Tensor:
        """(1, T, ...) -> (samples, longest, ...), zeros where no token is."""
        padded = row.new_zeros(self.samples * self.longest, *row.shape[2:]).index_copy(0, self.places.to(row.device), row[0])
        return padded.view(self.samples, self.longest, *row.shape[2:])

    def gathered(self, padded: Tensor) -> Tensor:
        """(samples, longest, ...) -> (1, T, ...)."""
        return padded.flatten(0, 1).index_select(0, self.places.to(padded.device))[None]


_running: "WeakKeyDictionary[nn.Module, Padding]" = WeakKeyDictionary()
_held: "WeakSet[nn.Module]" = WeakSet()


@contextmanager
def padded_run(model: nn.Module, padding: Padding) -> Iterator[None]:
    """Within: the model's blocks see samples padded like this."""
    _running[model] = padding
    try:
        yield
    finally:
        if model not in _held:
            del _running[model]


@contextmanager
def held(model: nn.Module) -> Iterator[None]:
    """Within: the newest run's padding stays until the next one, for a backward pass that runs the blocks again."""
    _held.add(model)
    try:
        yield
    finally:
        _held.discard(model)
        _running.pop(model, None)


def as_row(model: nn.Module, hidden: Tensor) -> Tensor:
    """What a hook sees inside the model's blocks, in the order of the packed row, (1, T, H)."""
    padding = _running.get(model)
    return hidden if padding is None else padding.gathered(hidden)


def as_seen(model: nn.Module, row: Tensor) -> Tensor:
    """What is in a packed row's order, (1, T, H), as the blocks have it now."""
    padding = _running.get(model)
    return row if padding is None else padding.spread(row)
