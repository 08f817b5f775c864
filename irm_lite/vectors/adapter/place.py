"""Which maps of a model an adapter goes beside, their names elsewhere, the norms behind them, and which models carry none."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch

from irm_lite.base.architecture import decoder_layers, text_config
from irm_lite.base.architectures import Architecture, of_gguf
from irm_lite.base.fingerprint import BAKED
from irm_lite.base.maps import ATTENTION, LAST
from irm_lite.base.norms import gain_of, gains_at
from irm_lite.base.stream import stream_of
from irm_lite.core.errors import InputError
from irm_lite.core.files.gguf_header import GgufHeader, require_model
from irm_lite.core.types import FloatArray
from irm_lite.vectors.adapter.post_norm import PostNorm

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_LAST_NORM = ".post_ffw_norm"  # GGUF's name, whatever transformers calls it
_NORMED = "it normalises what a block's last map puts out before that reaches the stream"


def require_maps(header: GgufHeader, blocks: tuple[int, ...], module: str = LAST) -> None:
    """Raise InputError where no adapter can go beside this map of these blocks of the file."""
    require_model(header)
    name = header.path.name
    if BAKED in header.metadata:
        raise InputError(f"{name} is baked already, and an adapter would add to that", "use the original: irm-lite bake --undo")
    if module == LAST and header.integer(f"{header.architecture}.expert_count", 0) > 0:
        raise InputError(f"{name} is a mixture of experts: a block has no single last map", "use the control vector")
    for block in blocks:
        if f"blk.{block}.{module}.weight" not in header.tensors:
            raise InputError(f"{name} has no blk.{block}.{module}.weight", "use the control vector")


def residual_scale(header: GgufHeader) -> float:
    """What the file's graph multiplies with whatever a block adds."""
    scale = float(header.metadata.get(f"{header.architecture}.residual_scale", 1.0))
    return scale or 1.0  # llama.cpp takes 0 for none


def residual_scale_of(model: "PreTrainedModel") -> float:
    """The same of a model in transformers."""
    return float(getattr(model.config, "residual_multiplier", 1.0))


def post_norms(header: GgufHeader, blocks: tuple[int, ...]) -> dict[int, PostNorm]:
    """By block the norm between its last map and the stream; empty where the file's architecture has none.

    Raises InputError where it is not known what that norm's output is added to.
    """
    found = {block: f"blk.{block}{_LAST_NORM}.weight" for block in blocks if f"blk.{block}{_LAST_NORM}.weight" in header.tensors}
    if found and not _sandwiched(of_gguf(header.architecture)):
        raise InputError(f"no adapter is made for {header.path.name}: {_NORMED}", "use the control vector")
    epsilon = float(header.metadata.get(f"{header.architecture}.attention.layer_norm_rms_epsilon", 0.0))
    last = header.integer(f"{header.architecture}.block_count", 0) - 1

    def read_by(block: int, gain: FloatArray) -> FloatArray:
        name = "output_norm.weight" if block == last else f"blk.{block + 1}.attn_norm.weight"
        return header.read_f32(name) if name in header.tensors else np.ones_like(gain)

    gains = {block: header.read_f32(name) for block, name in found.items()}
    return {block: PostNorm(gain, epsilon, read_by(block, gain)) for block, gain in gains.items()}


def post_norms_of(model: "PreTrainedModel", names: Mapping[str, str], blocks: tuple[int, ...]) -> dict[int, PostNorm]:
    """The same of a model in transformers. `names`: its `module_names`."""
    found = {block: f"blk.{block}{_LAST_NORM}" for block in blocks if f"blk.{block}{_LAST_NORM}" in names}
    if found and not _sandwiched(stream_of(model).known):
        raise InputError(f"no adapter is made for a {type(model).__name__}: {_NORMED}", "use the control vector")
    epsilon = float(text_config(model).rms_norm_eps) if found else 0.0
    reading = gains_at(model, "block") if found else []
    gains = {block: gain_of(model, model.get_submodule(names[name])) for block, name in found.items()}
    return {block: PostNorm(_values(gain), epsilon, _values(reading[block])) for block, gain in gains.items()}


def _values(gain: torch.Tensor) -> FloatArray:
    values: FloatArray = gain.detach().float().cpu().numpy()
    return values


def _sandwiched(known: Architecture | None) -> bool:
    return known is not None and known.sandwiched


def require_attention(model: "PreTrainedModel", names: Mapping[str, str], blocks: tuple[int, ...]) -> None:
    """Raise InputError where an adapter beside attention's output map cannot add what an IRM of site `attn` does."""
    kind = type(model).__name__
    lacking = next((block for block in blocks if f"blk.{block}.{ATTENTION}" not in names), None)
    if lacking is not None:
        raise InputError(f"block {lacking} of a {kind} has no output map of attention", "leave out --rank: the exported vector")
    if any("norm" in name for name in stream_of(model).attn):
        raise InputError(f"a {kind} normalises what attention puts out", "use the control vector")


def help_of(header: GgufHeader) -> dict[int, str]:
    """By block the map whose factor helps where the last one does not suffice: attention's. Recurrent blocks have none; nor has any
    where what attention puts out is normalised."""
    known = of_gguf(header.architecture)
    # the MLP's norm has that name in some files (Seed-OSS, Qwen3.5)
    normed = _sandwiched(known) if known is not None else "blk.0.post_attention_norm.weight" in header.tensors
    blocks = range(header.integer(f"{header.architecture}.block_count", 0))
    return {} if normed else {block: ATTENTION for block in blocks if f"blk.{block}.{ATTENTION}.weight" in header.tensors}


def help_of_model(model: "PreTrainedModel", names: Mapping[str, str]) -> dict[int, str]:
    """The same of a model in transformers. `names`: its `module_names`."""
    if any("norm" in name for name in stream_of(model).attn):
        return {}
    return {block: ATTENTION for block in range(len(decoder_layers(model))) if f"blk.{block}.{ATTENTION}" in names}
