"""A GGUF's metadata and tensor names -> the graph that llama.cpp makes of them, for transformers to make the same.

transformers reads a dozen keys of a file and passes over the rest without a word; what then is trained is another model than the
one that llama.cpp runs. Here every key of the architecture that llama.cpp's graph reads is mapped, or the file is refused by
name. What nobody thought of is caught by comparing the two runtimes (llamacpp/agreement.py).

Read in llama.cpp's source (llama-model.cpp: load_hparams and create_tensor_qkv; src/models/llama.cpp, qwen2.cpp, qwen3.cpp;
llama-context.cpp: yarn; ggml-cpu/ops.cpp: rope_yarn).
"""

import math
import re
from dataclasses import dataclass

import numpy as np

from irm_lite.base.sources.gguf_checks import MAX_LAYERS
from irm_lite.core.errors import BaseModelError
from irm_lite.core.files.gguf_header import ArrayInfo, GgufHeader
from irm_lite.core.files.gguf_types import ValueType
from irm_lite.core.types import DoubleArray

# Their keys are read here, all of them; of other architectures transformers reads what it knows.
MAPPED = ("llama", "qwen2", "qwen3")

_READ = (  # under the architecture's name; by this file, by gguf_checks.py or by transformers
    *("context_length", "embedding_length", "block_count", "feed_forward_length", "vocab_size"),
    *("attention.head_count", "attention.head_count_kv", "attention.key_length", "attention.value_length"),
    *("attention.layer_norm_rms_epsilon", "rope.dimension_count", "rope.freq_base", "rope.scaling.type", "rope.scaling.factor"),
    *("rope.scale_linear", "rope.scaling.attn_factor", "rope.scaling.original_context_length"),
)
_INERT = (  # llama.cpp's graphs of MAPPED are the same whatever they say
    *("attention.layer_norm_epsilon", "attention.sliding_window", "attention.sliding_window_pattern", "pooling_type"),
    *("rope.scaling.finetuned", "rope.scaling.yarn_ext_factor", "rope.scaling.yarn_attn_factor", "rope.scaling.yarn_beta_fast"),
    *("rope.scaling.yarn_beta_slow", "rope.scaling.yarn_log_multiplier", "tensor_data_layout"),
)
_NEUTRAL: dict[str, tuple[object, ...]] = {  # they change other graphs, and some day perhaps these: values that change nothing
    "attention.causal": (True,),
    "attention.clamp_kqv": (0.0,),
    "attention.max_alibi_bias": (0.0,),
    "attention.output_scale": (0.0, 1.0),
    "attention.scale": (0.0,),
    "attention.temperature_length": (0,),
    "attention.temperature_scale": (0.0,),
    "attn_logit_softcapping": (0.0,),
    "embedding_scale": (0.0, 1.0),
    "expert_count": (0,),
    "expert_feed_forward_length": (0,),
    "expert_group_count": (0, 1),
    "expert_group_used_count": (0, 1),
    "expert_shared_count": (0,),
    "expert_shared_feed_forward_length": (0,),
    "expert_used_count": (0,),
    "expert_weights_norm": (False,),
    "expert_weights_scale": (0.0, 1.0),
    "final_logit_softcapping": (0.0,),
    "leading_dense_block_count": (0,),
    "logit_scale": (0.0, 1.0),
    "nextn_predict_layers": (0,),
    "residual_scale": (0.0, 1.0),
    "rope.dimension_sections": (),
    "rope.scaling.alpha": (0.0,),
    "swin_norm": (False,),
    "use_parallel_residual": (False,),
}

_MAX_HEAD = 1 << 16
_BETA_FAST, _BETA_SLOW = 32.0, 1.0  # llama_hparams' own: no key of MAPPED changes them
_BLOCK = re.compile(r"blk\.(\d+)\.(.+)")
_PLAIN = (  # tensors of a block that transformers maps
    *("attn_norm.weight", "attn_q.weight", "attn_k.weight", "attn_v.weight", "attn_output.weight", "ffn_norm.weight"),
    *("ffn_gate.weight", "ffn_up.weight", "ffn_down.weight"),
)
_ATTENTION_BIASES = ("attn_q.bias", "attn_k.bias", "attn_v.bias", "attn_output.bias")
_MLP_BIASES = ("ffn_gate.bias", "ffn_up.bias", "ffn_down.bias")
_OF_BLOCKS: dict[str, frozenset[str]] = {
    "llama": frozenset((*_PLAIN, *_ATTENTION_BIASES, *_MLP_BIASES)),
    "qwen2": frozenset((*_PLAIN, *_ATTENTION_BIASES[:3])),
    "qwen3": frozenset((*_PLAIN, "attn_q_norm.weight", "attn_k_norm.weight")),
}
_FACTORS = "rope_freqs.weight"
_EPSILON = "attention.layer_norm_rms_epsilon"
_AGAIN = "download or convert it again"
_OUTSIDE = frozenset(("token_embd.weight", "output.weight", "output_norm.weight", _FACTORS))


@dataclass(frozen=True)
class Rope:
    """How positions are rotated: by `inv_freq` (D/2,) radians a token; cosines and sines times `scaling`. `base`: unscaled."""

    inv_freq: DoubleArray
    scaling: float
    base: float


@dataclass(frozen=True)
class Graph:
    """What of a file's graph transformers does not read by itself. `unknown`: keys of which nobody here has heard."""

    rope: Rope
    heads: int
    kv_heads: int
    head_size: int
    attention_bias: bool
    mlp_bias: bool
    unknown: tuple[str, ...]


def read_graph(header: GgufHeader) -> Graph | None:
    """The graph of a file of a MAPPED architecture; None of another. Raises BaseModelError, by name, where it cannot be made."""
    if header.architecture not in MAPPED:
        return None
    unknown = unknown_keys(header)
    _refuse_tensors(header)
    if _number(header, _EPSILON, 0.0) <= 0:
        raise BaseModelError(f"{header.path} has no positive {header.architecture}.{_EPSILON}", _AGAIN)
    names = {match[2] for name in header.tensors if (match := _BLOCK.fullmatch(name))}
    biased = header.architecture == "llama"  # Qwen2's are part of its class
    same_in_all_layers(header, "feed_forward_length", 0)
    heads = same_in_all_layers(header, "attention.head_count")
    head_size = header.integer(f"{header.architecture}.attention.key_length", _size(header, "embedding_length") // max(heads, 1))
    if heads < 1 or not 2 <= head_size <= _MAX_HEAD:
        raise BaseModelError(f"{header.path} has {heads} heads of {head_size}", _AGAIN)
    return Graph(
        _rope(header, head_size),
        heads,
        same_in_all_layers(header, "attention.head_count_kv", heads),
        head_size,
        attention_bias=biased and not names.isdisjoint(_ATTENTION_BIASES),
        mlp_bias=biased and not names.isdisjoint(_MLP_BIASES),
        unknown=unknown,
    )


def unknown_keys(header: GgufHeader) -> tuple[str, ...]:
    """Keys of the architecture that are not known here. Raises BaseModelError on one that changes a graph in a way not mapped."""
    prefix, unknown = f"{header.architecture}.", []
    for key, value in header.metadata.items():
        name = key.removeprefix(prefix)
        if name == key or name in _READ or name in _INERT:
            continue
        if name not in _NEUTRAL:
            unknown.append(key)
        elif value not in _NEUTRAL[name]:
            told = f"{value:g}" if isinstance(value, float) else "an array" if isinstance(value, ArrayInfo) else value
            raise BaseModelError(f"{header.path} has {key} = {told!s:.60}, which irm-lite does not map", _ELSEWHERE)
    return tuple(unknown)


_ELSEWHERE = "give the Hugging Face folder that it was made from, or another model"


def _refuse_tensors(header: GgufHeader) -> None:
    """Raise BaseModelError on a tensor that the transformers model would not have."""
    allowed = _OF_BLOCKS[header.architecture]
    for name in header.tensors:
        match = _BLOCK.fullmatch(name)
        if name.endswith(".bias") and len(header.tensors[name].shape) != 1:
            raise BaseModelError(f"{header.path}: {name} is not a row of numbers", _AGAIN)
        if match[2] not in allowed if match else name not in _OUTSIDE:
            raise BaseModelError(f"{header.path} has the tensor {name[:80]}, which irm-lite does not map", _ELSEWHERE)


def _size(header: GgufHeader, key: str) -> int:
    return header.integer(f"{header.architecture}.{key}")


def same_in_all_layers(header: GgufHeader, key: str, default: int | None = None) -> int:
    """A number that llama.cpp takes a layer at a time, where all layers have the same. Raises BaseModelError where not."""
    name = f"{header.architecture}.{key}"
    value = header.metadata.get(name)
    if not isinstance(value, ArrayInfo):
        return header.integer(name, default)
    if value.item_type not in (ValueType.UINT32, ValueType.INT32) or not 0 < value.length <= MAX_LAYERS:
        raise BaseModelError(f"{header.path}: {name} does not hold a whole number a layer", _AGAIN)
    numbers = sorted({int(each) for each in header.read_numbers(value)})
    if len(numbers) != 1:
        raise BaseModelError(f"{header.path} has {name} of {numbers[0]} to {numbers[-1]}: its layers differ", _ELSEWHERE)
    return numbers[0]


def _number(header: GgufHeader, key: str, default: float) -> float:
    value = header.metadata.get(f"{header.architecture}.{key}", default)
    if not isinstance(value, float) or not math.isfinite(value):
        raise BaseModelError(f"{header.path}: {header.architecture}.{key} is not a float32 number", _AGAIN)
    return float(value)


def _rope(header: GgufHeader, head_size: int) -> Rope:
    """As llama.cpp computes it: ggml-cpu/ops.cpp, rope_yarn; llama-context.cpp for yarn's scale.

    A frequency is base^(-2i/D), divided by the file's factor for it (Llama 3's), times 1/factor: everywhere where scaling is
    linear; by yarn (Peng et al. 2023, arXiv 2309.00071) below a frequency, blended in between.
    """
    kind = header.metadata.get(f"{header.architecture}.rope.scaling.type", "linear")
    if kind not in ("none", "linear", "yarn"):
        kind = kind if isinstance(kind, str) else "that is not a text"
        raise BaseModelError(f"{header.path} has the rope scaling {kind:.40}, which irm-lite does not map", _ELSEWHERE)
    base = _number(header, "rope.freq_base", 10000.0)
    factor = _number(header, "rope.scaling.factor", _number(header, "rope.scale_linear", 0.0)) or 1.0
    if base <= 1 or factor <= 0:
        raise BaseModelError(f"{header.path}: a rope base of {base:g} with a factor of {factor:g}", _AGAIN)
    scale = 1.0 if kind == "none" else 1.0 / factor
    extrapolated = base ** (-2.0 * np.arange(head_size // 2) / head_size)
    if _FACTORS in header.tensors:
        factors = header.read_f32(_FACTORS).astype(np.float64)
        if factors.shape != extrapolated.shape or not (np.isfinite(factors) & (factors > 0)).all():
            raise BaseModelError(
                f"{header.path}: {_FACTORS} does not hold {head_size // 2} positive factors", "download or convert it again"
            )
        extrapolated = extrapolated / factors
    attention = _number(header, "rope.scaling.attn_factor", 1.0)
    if kind != "yarn":
        return Rope(scale * extrapolated, attention, base)
    original = header.integer(f"{header.architecture}.rope.scaling.original_context_length", 0) or _size(header, "context_length")
    if original <= 0:
        raise BaseModelError(f"{header.path}: a rope that was trained on {original} tokens", _AGAIN)
    low, high = (
        head_size * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(base)) for turns in (_BETA_FAST, _BETA_SLOW)
    )
    low, high = max(0.0, math.floor(low)), min(head_size - 1.0, math.ceil(high))
    kept = 1.0 - np.clip((np.arange(head_size // 2) - low) / max(0.001, high - low), 0.0, 1.0)
    return Rope(
        extrapolated * (scale * (1.0 - kept) + kept), attention * (1.0 + 0.1 * math.log(factor) if factor > 1 else 1.0), base
    )
