"""LoRA of rank 16 on all linear layers (PEFT), by the LM loss of the tone's answers. Scored in transformers, on the same base."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from irm_lite.base.forward import answer_hidden
from irm_lite.base.heads import head_of
from irm_lite.base.speaker import BaseSpeaker
from irm_lite.data.encoding import Sample
from irm_lite.data.packing import pack
from irm_lite.training.step.answer_loss import answer_nll
from steering_methods.arena import Arena
from steering_methods.fitting import batches, fit
from steering_methods.method import Made, Variant

RANK = 16


def missing(_arena: Arena) -> str | None:
    return None if find_spec("peft") else "the peft package is missing (pip install 'irm-lite[bench]')"


class Adapters:
    """LoRA in the base's own layers, at strength 0, that is without effect, but within `at`."""

    def __init__(self, model: Any, seed: int) -> None:
        from peft import LoraConfig, get_peft_model
        from peft.tuners.lora import LoraLayer

        torch.manual_seed(seed)
        self.whole = get_peft_model(model, LoraConfig(r=RANK, target_modules="all-linear", task_type="CAUSAL_LM"))
        self._layers: list[Any] = [each for each in self.whole.modules() if isinstance(each, LoraLayer)]
        self._scale = {id(layer): layer.scaling["default"] for layer in self._layers}
        self._set(0.0)

    def parameters(self) -> list[Tensor]:
        return [each for each in self.whole.parameters() if each.requires_grad]

    @contextmanager
    def at(self, strength: float) -> Iterator[None]:
        self._set(strength)
        try:
            yield
        finally:
            self._set(0.0)

    def _set(self, strength: float) -> None:
        for layer in self._layers:
            layer.scaling["default"] = strength * self._scale[id(layer)]

    def remove(self) -> None:
        """Leave the base as it was."""
        self.whole.unload()


def lora(arena: Arena, seed: int, variant: Variant, held: ExitStack) -> Made:
    started, steps = time.monotonic(), arena.extents.steps
    base = arena.base
    held.enter_context(arena.dequantised())
    adapters = Adapters(base.model, seed)
    held.callback(adapters.remove)
    head = head_of(base.model)

    def loss(batch: list[Sample]) -> Tensor:
        row = pack(batch)
        return answer_nll(head, answer_hidden(base.model, row), row["labels"], row["weights"]) / len(row["labels"])

    with adapters.at(1.0):
        losses = fit(adapters.parameters(), batches(arena.samples, steps, seed), loss, steps, float(variant))
    count = sum(each.numel() for each in adapters.parameters())

    def speaker(strength: float) -> BaseSpeaker:
        return BaseSpeaker(base, partial(adapters.at, strength))

    return Made(
        lambda strength: arena.own_voice(speaker(strength)), time.monotonic() - started, count, "transformers", losses=losses
    )
