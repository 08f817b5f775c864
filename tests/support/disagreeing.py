"""transformers made to read a GGUF as another model than llama.cpp does, as it would pass over what it does not know."""

from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

import irm_lite.base.streamed
from irm_lite.base.sources.gguf_weights import gguf_weights


class Scaled:
    """A weight that is read `factor` times as large."""

    def __init__(self, weight: Any, factor: float) -> None:
        self.weight, self.factor = weight, factor

    def __getitem__(self, item: object) -> Tensor:
        values: Tensor = self.weight[item] * self.factor
        return values


def disagree(monkeypatch: pytest.MonkeyPatch, factor: float) -> None:
    """As if llama.cpp divided the logits by `factor`, a number that stands in the file, and transformers did not: 1.5 is a KL of
    0.05 nats a token in a tiny model, 30 one of many."""

    def passing_over(gguf: Path, model: Any) -> dict[str, Any]:
        weights: dict[str, Any] = {**gguf_weights(gguf, model)}
        return weights | {"lm_head.weight": Scaled(weights["lm_head.weight"], factor)}

    monkeypatch.setattr(irm_lite.base.streamed, "gguf_weights", passing_over)
