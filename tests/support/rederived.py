"""Llama and the IRMs a second time, written from their formulas in plain tensor operations, with injection spelled out.

Sources: Touvron et al. 2023 (RMSNorm, SwiGLU), Su et al. 2021 (rotary embedding), Ainslie et al. 2023 (grouped queries).
"""

import math
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from irm_lite.steering.irm import IRM


def irm_outputs(irm: IRM, h0: Tensor) -> Tensor:
    """(B, T, H) -> (B, T, L, H), from the state dict and the options alone."""
    weights: dict[str, Tensor] = irm.state_dict()
    scale = torch.tensor(irm.options.get("scale", [1.0] * len(irm.layers)))[:, None]
    if irm.kind == "static":
        return (scale * weights["vectors"]).expand(*h0.shape[:2], -1, -1)
    if irm.kind == "paper":
        x = h0
        for layer in (0, 2, 4, 6):
            x = torch.clamp(x @ weights[f"trunk.{layer}.weight"].T + weights[f"trunk.{layer}.bias"], min=0)
        flat = x @ weights["head.weight"].T + weights["head.bias"]
        return flat.view(*h0.shape[:2], irm.hidden_size, len(irm.layers)).transpose(-1, -2)  # the layer is the fastest axis
    if irm.kind == "lora":  # of what each layer's last map reads, (B, T, L, F) or one for all, (B, T, F)
        inputs = h0 if h0.ndim == 4 else h0[:, :, None].expand(-1, -1, len(irm.layers), -1)
        low = torch.einsum("btlf,lrf->btlr", inputs, weights["down"])
        return 8 / weights["up"].shape[-1] * torch.einsum("btlr,lhr->btlh", low, weights["up"])
    assert irm.kind == "lite", f"derive {irm.kind} here a second time"
    x = h0 / torch.sqrt((h0**2).mean(-1, keepdim=True) + torch.finfo(h0.dtype).eps)
    for layer in (0, 2):
        x = x @ weights[f"trunk.{layer}.weight"].T + weights[f"trunk.{layer}.bias"]
        x = x * torch.sigmoid(x)
    low = torch.einsum("btw,lrw->btlr", x, weights["down"])
    return scale * (torch.einsum("btlr,lhr->btlh", low, weights["up"]) + weights["bias"])


def logits(model: PreTrainedModel, ids: Tensor, irm: IRM | None, strength: float = 1.0) -> Tensor:
    """(B, T) token ids -> (B, T, V) logits of a Llama in fp32, with the IRM added at its site."""
    weights: dict[str, Tensor] = model.state_dict()
    config = model.config
    stream = weights["model.embed_tokens.weight"][ids]
    added = torch.zeros(())
    for layer in range(config.num_hidden_layers):
        prefix = f"model.layers.{layer}."
        part = {name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)}
        stream = stream + _attention(_rms_norm(stream, part["input_layernorm.weight"], config.rms_norm_eps), part, config)
        if layer == 0 and irm is not None and irm.kind != "lora":
            added = irm_outputs(irm, stream)
        if irm is not None and irm.site == "attn" and layer in irm.layers:
            stream = stream + strength * added[:, :, irm.layers.index(layer)]
        normed = _rms_norm(stream, part["post_attention_layernorm.weight"], config.rms_norm_eps)
        gate = normed @ part["mlp.gate_proj.weight"].T
        inner = gate * torch.sigmoid(gate) * (normed @ part["mlp.up_proj.weight"].T)
        stream = stream + inner @ part["mlp.down_proj.weight"].T
        if irm is not None and irm.kind == "lora":
            added = irm_outputs(irm, inner)
        if irm is not None and irm.site == "block" and layer in irm.layers:
            stream = stream + strength * added[:, :, irm.layers.index(layer)]
    return _rms_norm(stream, weights["model.norm.weight"], config.rms_norm_eps) @ weights["lm_head.weight"].T


def _rms_norm(x: Tensor, gain: Tensor, eps: float) -> Tensor:
    return x / torch.sqrt((x**2).mean(-1, keepdim=True) + eps) * gain


def _attention(x: Tensor, part: dict[str, Tensor], config: Any) -> Tensor:
    batch, length, width = x.shape
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    size = width // heads
    q = (x @ part["self_attn.q_proj.weight"].T).view(batch, length, heads, size)
    k = (x @ part["self_attn.k_proj.weight"].T).view(batch, length, kv_heads, size)
    v = (x @ part["self_attn.v_proj.weight"].T).view(batch, length, kv_heads, size)
    q, k = _rotate(q, config.rope_parameters["rope_theta"]), _rotate(k, config.rope_parameters["rope_theta"])
    k, v = k.repeat_interleave(heads // kv_heads, 2), v.repeat_interleave(heads // kv_heads, 2)
    scores = torch.einsum("bqhd,bkhd->bhqk", q, k) / math.sqrt(size)
    future = torch.ones(length, length, dtype=torch.bool).triu(1)
    mixed = torch.einsum("bhqk,bkhd->bqhd", scores.masked_fill(future, -torch.inf).softmax(-1), v)
    return mixed.reshape(batch, length, width) @ part["self_attn.o_proj.weight"].T


def _rotate(x: Tensor, theta: float) -> Tensor:
    length, size = x.shape[1], x.shape[-1]
    frequency = theta ** (-torch.arange(0, size, 2, dtype=torch.float64) / size)
    angle = torch.outer(torch.arange(length, dtype=torch.float64), frequency)
    turn = torch.polar(torch.ones_like(angle), angle)[None, :, None]
    halves = torch.complex(x[..., : size // 2].double(), x[..., size // 2 :].double()) * turn
    return torch.cat([halves.real, halves.imag], -1).to(x.dtype)
