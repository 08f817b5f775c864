"""The gains of the norms that read the residual stream next, as they multiply: Gemma's are stored less one."""

from typing import Any

import torch
from torch import Tensor, nn

from irm_lite.base.architecture import decoder_layers, final_norm, module_of, text_config
from irm_lite.base.stream import stream_of


def gain_of_final(model: nn.Module) -> Tensor:
    """(H,), float32, of the norm before the head."""
    return gain_of(model, final_norm(model))


def gains_at(model: nn.Module, site: str) -> list[Tensor]:
    """For each block (H,), float32: of the norm that reads the stream after the site; ones where none reads it (OLMo 2)."""
    stream, blocks = stream_of(model), decoder_layers(model)
    if site == "attn":
        return [gain_of(model, module_of(block, stream.reads)) for block in blocks]
    following = [module_of(block, stream.attn_norm) for block in [*blocks][1:]]
    return [gain_of(model, norm) for norm in (*following, final_norm(model))]


def gain_of(model: Any, norm: nn.Module | None) -> Tensor:
    """(H,), float32, of one of the model's norms; ones where it has no gain."""
    known, weight = stream_of(model).known, getattr(norm, "weight", None)
    if not isinstance(weight, Tensor) or weight.dim() != 1:
        return torch.ones(text_config(model).hidden_size, device=model.device)
    return weight.float() + (known.shift if known else 0.0)
