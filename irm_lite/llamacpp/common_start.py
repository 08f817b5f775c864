"""What several texts begin with (a system prompt, as a rule), read once and gone on from, in one llama.cpp context.

The last of the context's sequences holds it; the cells of the cache are shared, not copied. It is read anew for each call: what
was computed under one steering is never used under another.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from irm_lite.data.packing import in_common

if TYPE_CHECKING:
    from irm_lite.llamacpp.runtime import Runtime

_LEAST = 4  # tokens that are worth a call of their own


class CommonStart:
    """The start that all texts have, at work in a runtime as it is steered now. `sequences` are those left for the texts."""

    def __init__(self, runtime: "Runtime", texts: Sequence[Sequence[int]], most: int) -> None:
        """`most`: tokens of the start at the most. A context of one sequence keeps nothing."""
        self._runtime = runtime
        self.sequences = max(1, runtime.n_sequences - 1)
        self._holder = runtime.n_sequences - 1 if runtime.n_sequences > 1 else None
        self.length = in_common(texts, most) if self._holder is not None and len(texts) > 1 else 0
        if self.length < _LEAST:
            self.length = 0
        runtime.begin()
        for at in range(0, self.length, runtime.n_batch):
            part = texts[0][at : min(at + runtime.n_batch, self.length)]
            placed = [(token, at + place, runtime.n_sequences - 1) for place, token in enumerate(part)]
            runtime.decode(placed, np.zeros(len(part), dtype=np.bool_), keep=False)

    def begin(self) -> None:
        """Forget all but the start."""
        self._runtime.begin(self._holder if self.length else None)

    def into(self, sequence: int) -> None:
        """Let an empty sequence begin with the start: `length` tokens."""
        if self.length and self._holder is not None:
            self._runtime.share([sequence], self._holder)
