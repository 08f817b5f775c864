"""What llama.cpp takes on trust in a model file, checked before it sees it.

It answers most damage with an error. On what is checked here it aborts the process, or calls code that does not exist: assertions
in llama-model.cpp, llama-vocab.cpp and ggml.c, kernels that a type does not have, exceptions that cross ctypes.
"""

import math
from typing import Any

from irm_lite.core.errors import BaseModelError
from irm_lite.core.files.gguf_header import ArrayInfo, GgufHeader
from irm_lite.core.files.gguf_types import F32, F64, I8, I16, I32, I64, Q8_1, Q8_K, ValueType

# Graphs that were fuzzed with these checks in front (docs/reliability.md); others are tried in a child process first.
KNOWN = ("llama", "mistral3", "qwen2")

_NO_WEIGHTS = (Q8_1, Q8_K, I8, I16, I32, I64, F64)  # ggml has no matrix product for them
MAX_LAYERS, _MAX_EXPERTS = 512, 1024  # LLAMA_MAX_LAYERS, LLAMA_MAX_EXPERTS
_MAX_SIZE = 1 << 24  # of any dimension
_ALIGNMENT = 32  # TENSOR_ALIGNMENT
_ROPE_SCALINGS = ("none", "linear", "yarn", "longrope")
_TOKENIZERS = ("llama", "gpt2")  # SentencePiece and byte-level BPE


def require_loadable(header: GgufHeader) -> None:
    """Raise BaseModelError where llama.cpp would not survive the file. Of architectures not in KNOWN only a part is checked."""
    try:
        _check_sizes(header)
        if header.architecture in KNOWN:
            _check_experts(header)
            _check_attention(header)
            _check_floats(header)
            _check_tensors(header)
            _check_vocabulary(header)
    except _Unsound as why:
        raise BaseModelError(f"{header.path} would crash llama.cpp ({why})", "download or convert it again") from None
    if header.architecture in KNOWN:
        _require_rope(header)


def _require_rope(header: GgufHeader) -> None:
    """llama.cpp runs such files, and writes nonsense; the graph of a training has no such rotation (gguf_graph.py)."""
    given = (_of(header, key) for key in ("rope.freq_base", "rope.scaling.factor"))
    base, factor = (value if isinstance(value, float) else default for value, default in zip(given, (10000.0, 1.0), strict=True))
    if base <= 1 or factor < 0:
        raise BaseModelError(f"{header.path}: a rope base of {base:g} with a factor of {factor:g}", "download or convert it again")


class _Unsound(Exception):
    """What is wrong with the file."""


def _of(header: GgufHeader, key: str) -> Any:
    """The architecture's own key."""
    return header.metadata.get(f"{header.architecture}.{key}")


def _require(header: GgufHeader, key: str, least: int, most: int, default: int | None = None) -> list[int]:
    """The numbers of a key, of which each layer may have one of its own."""
    value = _of(header, key)
    if value is None and default is not None:
        return [default]
    if isinstance(value, ArrayInfo) and value.item_type in (ValueType.UINT32, ValueType.INT32):
        numbers = [int(each) for each in header.read_numbers(value)]
    elif isinstance(value, int) and not isinstance(value, bool):
        numbers = [value]
    else:
        raise _Unsound(f"{header.architecture}.{key} is {'missing' if value is None else 'no whole number'}")
    if not numbers or not all(least <= each <= most for each in numbers):
        raise _Unsound(f"{header.architecture}.{key} is not within {least} and {most}")
    return numbers


def _check_sizes(header: GgufHeader) -> None:
    (layers,) = _require(header, "block_count", 1, MAX_LAYERS)[:1]
    _require(header, "context_length", 1, 2**31 - 1)
    _require(header, "embedding_length", 1, _MAX_SIZE)
    _require(header, "nextn_predict_layers", 0, layers - 1, 0)
    if header.layout.data_start % _ALIGNMENT:
        raise _Unsound(f"its data do not begin at a multiple of {_ALIGNMENT} bytes")


def _check_experts(header: GgufHeader) -> None:
    experts = _require(header, "expert_count", 0, _MAX_EXPERTS, 0)[0]
    _require(header, "expert_used_count", min(experts, 1), experts, 0 if experts == 0 else None)
    groups = _require(header, "expert_group_count", 0, max(experts - 1, 0), 0)[0]
    if groups > 1:
        _require(header, "expert_group_used_count", 1, groups - 1)
        if experts % groups:
            raise _Unsound(f"{groups} groups do not share {experts} experts out evenly")


def _check_attention(header: GgufHeader) -> None:
    heads = _require(header, "attention.head_count", 1, _MAX_SIZE)
    keys = _require(header, "attention.head_count_kv", 1, _MAX_SIZE, heads[0])
    if len(set(heads)) > 1 or len(set(keys)) > 1 or heads[0] % keys[0]:
        raise _Unsound(f"{heads[0]} heads do not share {keys[0]} keys evenly, or layers differ in them")
    _require(header, "feed_forward_length", 1, _MAX_SIZE)
    share = header.integer(f"{header.architecture}.embedding_length") // heads[0]
    names = ("attention.key_length", "attention.value_length", "rope.dimension_count")
    key, value, turned = (_require(header, name, 1, _MAX_SIZE, share)[0] for name in names)
    if not key == value == turned or key % 2:
        raise _Unsound(f"heads of {key} and {value}, of which {turned} are rotated")


def _check_floats(header: GgufHeader) -> None:
    for key, value in header.metadata.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise _Unsound(f"{key[:80]} is {value}")
    for key in ("attention.layer_norm_rms_epsilon", "attention.layer_norm_epsilon"):
        value = _of(header, key)
        if isinstance(value, float) and value < 0:
            raise _Unsound(f"{header.architecture}.{key} is negative")
    scaling = _of(header, "rope.scaling.type")
    if scaling is not None and scaling not in _ROPE_SCALINGS:
        raise _Unsound(f"the rope scaling {scaling!s:.40} is unknown")


def _check_tensors(header: GgufHeader) -> None:
    for tensor in header.tensors.values():
        if not all(0 < extent <= _MAX_SIZE for extent in tensor.shape):
            raise _Unsound(f"{tensor.name} has the shape {tensor.shape}")
        if len(tensor.shape) < 2 and tensor.type != F32:
            raise _Unsound(f"{tensor.name} is not F32")
        if tensor.type in _NO_WEIGHTS:
            raise _Unsound(f"{tensor.name} is of type {tensor.type}, which no weight has")


def _check_vocabulary(header: GgufHeader) -> None:
    kind, tokens = header.metadata.get("tokenizer.ggml.model"), header.metadata.get("tokenizer.ggml.tokens")
    if kind not in _TOKENIZERS:
        raise _Unsound(f"its tokenizer is {kind!s:.40}, not one of {', '.join(_TOKENIZERS)}")
    if not isinstance(tokens, ArrayInfo) or tokens.item_type != ValueType.STRING or tokens.length == 0:
        raise _Unsound("it has no vocabulary")
    words = [word or b"[EMPTY_%d]" % number for number, word in enumerate(header.read_strings(tokens))]
    known = set(words)
    if len(known) < len(words):
        raise _Unsound("two of its tokens are the same text")
    if kind == "llama":  # what no token spells is put together of bytes
        lacking = next((byte for byte in range(256) if b"<0x%02X>" % byte not in known and bytes([byte]) not in known), None)
        if lacking is not None:
            raise _Unsound(f"its vocabulary has no token for byte {lacking}")
