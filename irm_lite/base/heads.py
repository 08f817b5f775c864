"""From final hidden states to logits: the head, and what some architectures do to its output (a factor, a soft cap)."""

from typing import Any

import torch
from torch import Tensor, nn

from irm_lite.base.architecture import text_config
from irm_lite.base.architectures import TABLE


class FinishedHead(nn.Module):
    """A head whose output is scaled, then capped softly: cap * tanh(scale * z / cap)."""

    def __init__(self, linear: nn.Module, scale: float, cap: float | None) -> None:
        super().__init__()
        self.linear, self.scale, self.cap = linear, scale, cap

    @property
    def weight(self) -> Tensor:
        """The matrix (V, H)."""
        weight: Tensor = self.linear.weight  # type: ignore[assignment]
        return weight

    def forward(self, hidden: Tensor) -> Tensor:
        """Logits (..., V) of final, normed hidden states (..., H)."""
        logits: Tensor = self.linear(hidden) * self.scale
        return logits if self.cap is None else torch.tanh(logits / self.cap) * self.cap

    def slopes(self, logits: Tensor) -> Tensor | float:
        """The derivative of each logit with respect to the linear layer's output."""
        return self.scale if self.cap is None else self.scale * (1 - (logits / self.cap).square())


def head_of(model: Any) -> nn.Module:
    """What makes logits (..., V) of the model's final, normed hidden states (..., H): its head, or a FinishedHead of it."""
    config, linear = text_config(model), model.get_output_embeddings()
    known = TABLE.get(str(config.model_type))
    name = known.scale if known is not None else ""
    factor = float(getattr(config, name.removeprefix("/")) or 1) if name else 1.0
    cap = getattr(config, "final_logit_softcapping", None)
    if factor == 1 and not cap:
        head: nn.Module = linear
        return head
    return FinishedHead(linear, 1 / factor if name.startswith("/") else factor, float(cap) if cap else None)
