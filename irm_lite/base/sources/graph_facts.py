"""What tells two graphs apart whose weights are the same: facts in one text, `heads=4 kv_heads=2 ... biases=none`.

It stands in a fingerprint. A GGUF and the folder that it was made from have the facts of SHARED alike; `other` is of files
alone, `config` of folders alone. A fact that one of two lacks is not compared: fingerprints of older versions have none.
"""

import hashlib
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from irm_lite.base.sources.gguf_graph import Graph, read_graph
from irm_lite.core.errors import IrmLiteError
from irm_lite.core.files.gguf_header import ArrayInfo, GgufHeader
from irm_lite.core.files.gguf_types import F32
from irm_lite.core.types import DoubleArray, FloatArray

NONE = "none"
SHARED = {  # as GGUF calls a block's biases -> as transformers calls them
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_SHOWN = {"kv_heads": "key heads", "head_size": "size of heads", "epsilon": "norm epsilon", "other": "keys or tensors"}
_ROPE_TOLERANCE = 5e-6  # of mean logarithms: float32's rounding moves them by 1e-7, a base of 10001 for 10000 by 5e-5
_MAX_READ = 1 << 26  # bytes of a tensor that is hashed whole
_GAINS = re.compile(r"blk\.\d+\.(attn|ffn)_norm\.weight|output_norm\.weight")  # hashed as weights
_HEAD = "output.weight"  # a head of its own that repeats the embeddings changes nothing
_INERT = ("block_count", "context_length", "embedding_length", "feed_forward_length", "vocab_size")


def as_text(facts: Mapping[str, object]) -> str:
    """One text of the facts, whose values hold no space."""
    return " ".join(f"{name}={value}" for name, value in facts.items())


def differing(mine: str, other: str) -> tuple[str, ...]:
    """In what two graphs differ, in words; nothing where either is unknown (empty), or they share no fact. `other` may be several,
    as of a sum of vectors, with " + " between them."""
    first, several = _read(mine), [_read(text) for text in other.split(" + ")]
    return tuple(
        _SHOWN.get(name, name)
        for name, value in first.items()
        if any(name in second and not _same(name, value, second[name]) for second in several)
    )


def _read(text: str) -> dict[str, str]:
    return dict(part.split("=", 1) for part in text.split() if "=" in part)


def _same(name: str, mine: str, other: str) -> bool:
    if mine == other or name != "rope":
        return mine == other
    try:
        pairs = zip(map(float, mine.split(",")), map(float, other.split(",")), strict=True)
        return all(math.isclose(one, two, rel_tol=0, abs_tol=_ROPE_TOLERANCE) for one, two in pairs)
    except ValueError:
        return False


def shared_facts(
    heads: int, kv_heads: int, head_size: int, epsilon: float, rope: "tuple[DoubleArray, float]", biases: str | None
) -> dict[str, object]:
    """The facts that a GGUF and a folder have alike. `rope`: radians a token (D/2,), and the factor of cosines and sines."""
    facts: dict[str, object] = {"heads": heads, "kv_heads": kv_heads, "head_size": head_size, "epsilon": str(np.float32(epsilon))}
    frequencies, scaling = rope
    place = np.arange(len(frequencies)) / max(len(frequencies), 1)
    with np.errstate(all="ignore"):  # of absurd scalings
        moments = [float(np.mean(np.log(frequencies) * place**power)) for power in range(3)]
    facts["rope"] = ",".join(f"{value:.7f}" for value in (*moments, scaling))
    return facts if biases is None else {**facts, "biases": biases}


def digest_of_biases(biases: Iterable[tuple[int, str, FloatArray]]) -> str:
    """Of (block, GGUF's name, values), in order; those that are all zero count as absent. Values are hashed by size, since a GGUF
    has those of queries and keys in another order than transformers."""
    digest, some = hashlib.sha256(), False
    for layer, slot, values in biases:
        if values.any():
            some = True
            digest.update(f"{layer}.{slot}:".encode() + np.sort(bfloat16_bits(values)).astype("<u2").tobytes())
    return digest.hexdigest()[:16] if some else NONE


def bfloat16_bits(values: FloatArray) -> "np.ndarray[Any, np.dtype[np.uint32]]":
    """The bits of float32 values rounded to bfloat16, nearest, ties to even."""
    bits = np.ascontiguousarray(values, dtype="<f4").view("<u4")
    rounded: np.ndarray[Any, np.dtype[np.uint32]] = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return rounded


def graph_of_header(header: GgufHeader) -> str:
    """The facts of a file. Where not every key is mapped they are comparable with other files' alone."""
    try:
        graph = read_graph(header)
    except IrmLiteError:  # llama.cpp may run it all the same
        graph = None
    if graph is None:
        prefix = f"{header.architecture}."
        keys = [key for key in header.metadata if key.startswith(prefix) and key.removeprefix(prefix) not in _INERT]
        names = [name for name in header.tensors if name != _HEAD and not _GAINS.fullmatch(name)]
        return as_text({"other": _digest(header, keys, names)})
    return as_text(_facts(header, graph))


def _facts(header: GgufHeader, graph: Graph) -> dict[str, object]:
    layers = header.integer(f"{header.architecture}.block_count")
    named = [(layer, slot, f"blk.{layer}.{slot}.bias") for layer in range(layers) for slot in SHARED]
    biases = [each for each in named if each[2] in header.tensors]
    facts = shared_facts(
        graph.heads,
        graph.kv_heads,
        graph.head_size,
        header.metadata[f"{header.architecture}.attention.layer_norm_rms_epsilon"],
        (graph.rope.inv_freq, graph.rope.scaling),
        digest_of_biases((layer, slot, header.read_f32(name)) for layer, slot, name in biases),
    )
    own = [name for name in header.tensors if name.endswith((".bias", "_norm.weight")) and not _GAINS.fullmatch(name)]
    return {**facts, "other": _digest(header, graph.unknown, own)}


def _digest(header: GgufHeader, keys: Iterable[str], tensors: Iterable[str]) -> str:
    """Of these keys' values, and of these tensors: their names, and the values of those that are rows in F32."""
    digest, some = hashlib.sha256(), False
    for key in sorted(keys):
        value, some = header.metadata[key], True
        stored = repr(value) if not isinstance(value, ArrayInfo) else hashlib.sha256(header.read_bytes(value)).hexdigest()
        digest.update(f"{key}={stored};".encode(errors="replace"))
    for name in sorted(tensors):
        some, tensor = True, header.tensors[name]
        digest.update(f"{name};".encode(errors="replace"))
        if tensor.type == F32 and len(tensor.shape) < 2 and tensor.n_bytes <= _MAX_READ:  # quantised otherwise, these stay
            digest.update(bfloat16_bits(header.read_f32(name)).astype("<u2").tobytes())
    return digest.hexdigest()[:16] if some else NONE
