"""Base, IRM, vector and adapter compared in transformers, on the base that the IRM was trained on."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from irm_lite.base.forward import row_of
from irm_lite.base.load import Base
from irm_lite.core.types import Progress, unwatched
from irm_lite.data.encoding import Sample
from irm_lite.data.packing import rows
from irm_lite.steering.control_vector import ControlVector
from irm_lite.steering.injection import inject
from irm_lite.steering.irm import IRM
from irm_lite.steering.likelihood import log_probabilities
from irm_lite.vectors.fidelity.comparing import compared
from irm_lite.vectors.fidelity.comparison import Comparison, Where
from irm_lite.vectors.fidelity.steerings import Steering

_ROW_TOKENS = 512  # three sets of log-probabilities over the vocabulary are held for a row


class SteeredBase:
    """A base in transformers, an IRM, a vector, and PEFT's model of the base if it has put an adapter into it."""

    measured_in: Where = "transformers"

    def __init__(self, base: Base, irm: IRM | None, vector: ControlVector | None, peft: Any = None) -> None:
        self._base = base
        self._added = {"irm": irm, "vector": vector}
        self._peft = peft

    def rows(self, samples: Sequence[Sample]) -> Iterator[Sequence[Sample]]:
        """As many as are packed into a row."""
        return rows(samples, _ROW_TOKENS)

    @torch.no_grad()
    def log_probabilities(self, name: Steering, samples: Sequence[Sample], strength: float = 1.0) -> list[Tensor]:
        """(A, V) of each."""
        if self._peft is not None:
            set_scale(self._peft, strength)
        added = self._added.get(name)
        injected = nullcontext() if added is None else inject(self._base.model, added, strength=strength)
        with nullcontext() if self._peft is None or name == "adapter" else self._peft.disable_adapter(), injected:
            found = log_probabilities(self._base, row_of(self._base.model, samples), None)
        return list(torch.split(found, [sample.n_answer for sample in samples]))


def set_scale(peft: Any, strength: float) -> None:
    """The strength of the adapter that PEFT has put into its model."""
    from peft.tuners.lora import LoraLayer

    for module in peft.modules():
        if isinstance(module, LoraLayer):
            module.set_scale("default", strength)


def compare(
    base: Base, irm: IRM, vector: ControlVector, samples: Iterable[Sample], on_progress: Progress = unwatched
) -> Comparison:
    """Measure base, IRM and vector on the samples' answers."""
    return compared(SteeredBase(base, irm, vector), list(samples), on_progress)["vector"]
