"""Files of other architectures as `llama`, where the two graphs are the same but for names and the order of rotary halves.

Read in llama.cpp's source (src/models/*.cpp against llama.cpp there; llama-model.cpp: create_tensor_qkv, the table of rope
types). `llama` rotates neighbours; where another rotates the first half of a head with the second, the rows of its queries and
keys are put in the order of neighbours, as the converter does with Llama's. Quantised rows are whole, so rows are moved as bytes.
"""

import itertools
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

from irm_lite.base.sources.gguf_graph import same_in_all_layers, unknown_keys
from irm_lite.core.errors import BaseModelError, InputError
from irm_lite.core.files.gguf_header import GgufHeader
from irm_lite.core.files.gguf_types import packed_string
from irm_lite.vectors.baked_file import START, pieces

LLAMA = "llama"
OTHERWISE = "use the control vector with --control-vector, or an adapter"  # what does the same where nothing can be baked
_ARCHITECTURE = "general.architecture"
_ROTATED = ("attn_q", "attn_k")
_QKV_BIASES = frozenset(("attn_q.bias", "attn_k.bias", "attn_v.bias"))
_ATTENTION = ("attn_norm.weight", "attn_q.weight", "attn_k.weight", "attn_v.weight", "attn_output.weight")
_BLOCK = frozenset((*_ATTENTION, "ffn_norm.weight", "ffn_gate.weight", "ffn_up.weight", "ffn_down.weight"))
_OUTSIDE = frozenset(("token_embd.weight", "output.weight", "output_norm.weight"))


@dataclass(frozen=True)
class _Twin:
    """What a graph has beside the tensors that all of them have, and whether it rotates halves."""

    halves: bool
    biases: frozenset[str] = _QKV_BIASES
    outside: frozenset[str] = frozenset()


# tests/vectors/test_bake.py runs each of them in llama.cpp, baked and with the control vector.
SAME_AS_LLAMA = {
    "qwen2": _Twin(halves=True),
    "exaone": _Twin(halves=True, outside=frozenset(("rope_freqs.weight",))),
    "pangu-embedded": _Twin(halves=True, biases=_QKV_BIASES | {"attn_output.bias"}),
    "internlm2": _Twin(halves=False),
    "xverse": _Twin(halves=False),
    "ernie4_5": _Twin(halves=False),
}


@dataclass(frozen=True)
class Turn:
    """A tensor whose rows change places, within each head."""

    offset: int
    heads: int
    head_size: int  # rows of a head
    row_bytes: int

    @property
    def end(self) -> int:
        return self.offset + self.heads * self.head_size * self.row_bytes


def require_same_graph(header: GgufHeader) -> None:
    """Raise InputError where a file of one of SAME_AS_LLAMA has something that `llama` would compute otherwise, or not at all."""
    twin, hint = SAME_AS_LLAMA[header.architecture], OTHERWISE
    try:
        unknown = unknown_keys(header)
    except BaseModelError as error:
        raise InputError(str(error.what), hint) from None
    if unknown:
        raise InputError(f"{header.path} has {unknown[0][:80]}, which llama.cpp's llama may read otherwise", hint)
    if any(key.startswith(f"{LLAMA}.") for key in header.metadata):
        raise InputError(f"{header.path} is {header.architecture}, and has keys of llama", hint)
    for name in header.tensors:
        if _of_block(name) not in _BLOCK | twin.biases and name not in _OUTSIDE | twin.outside:
            raise InputError(f"{header.path} has the tensor {name[:80]}, for which llama has no place", hint)
    turns(header, header.architecture)


def _of_block(name: str) -> str:
    """What follows `blk.N.` in a tensor's name; nothing in others."""
    _, _, rest = name.removeprefix("blk.").partition(".")
    return rest if name.startswith("blk.") else ""


def turns(header: GgufHeader, architecture: str) -> list[Turn]:
    """The tensors of a file, originally of `architecture`, whose rows are in another order in `llama`, as they lie in the file.

    Raises InputError where its heads are not rotated whole, or differ between layers.
    """
    if architecture not in SAME_AS_LLAMA or not SAME_AS_LLAMA[architecture].halves:
        return []
    heads = max(same_in_all_layers(header, "attention.head_count"), 1)
    prefix = header.architecture
    head_size = header.integer(f"{prefix}.attention.key_length", header.integer(f"{prefix}.embedding_length") // heads)
    rotated = header.integer(f"{prefix}.rope.dimension_count", head_size)
    if head_size < 2 or head_size % 2 or rotated != head_size:
        raise InputError(f"{header.path} rotates {rotated} of {head_size} values of a head", OTHERWISE)
    found = []
    for name, info in header.tensors.items():
        if _of_block(name).partition(".")[0] in _ROTATED:
            rows = info.shape[-1] if info.shape else 0
            if rows == 0 or rows % head_size or (name.endswith(".weight") and len(info.shape) != 2):
                raise InputError(f"{header.path}: {name} does not hold heads of {head_size}", "download or convert it again")
            found.append(Turn(info.offset, rows // head_size, head_size, info.n_bytes // rows))
    found.sort(key=lambda turn: turn.offset)
    if any(one.end > other.offset for one, other in itertools.pairwise(found)):
        raise InputError(f"{header.path} has tensors that overlap", "download or convert it again")
    return found


def turned_pieces(
    source: BinaryIO, start: int, end: int, wanted: Sequence[Turn], *, back: bool = False, digest: Any = None
) -> Iterator[bytes]:
    """The bytes of `source` between two offsets, at the first of which it stands, with the rows of these tensors moved, or moved
    back. They are hashed as they are read."""
    for turn in wanted:
        yield from pieces(source, turn.offset - start, digest)
        for _ in range(turn.heads):
            head = b"".join(pieces(source, turn.head_size * turn.row_bytes, digest))
            yield _moved(head, turn, back)
        start = turn.end
    yield from pieces(source, end - start, digest)


def _moved(head: bytes, turn: Turn, back: bool) -> bytes:
    """Rows 0 to D-1 in the order 0, D/2, 1, D/2 + 1, ...; or from that order back."""
    half = turn.head_size // 2
    rows = np.frombuffer(head, np.uint8).reshape(*((half, 2) if back else (2, half)), turn.row_bytes)
    return rows.swapaxes(0, 1).tobytes()


def renamed(metadata: bytes, entries: Sequence[int], old: str, new: str) -> bytes:
    """Metadata, as they stand in a file from its START on, with one architecture's keys and name in the place of the other's.

    `entries`: where each entry begins in the file.
    """
    if old == new:
        return metadata
    parts = []
    for begin, end in zip(entries, [*entries[1:], START + len(metadata)], strict=True):
        entry = metadata[begin - START : end - START]
        (length,) = struct.unpack_from("<Q", entry)
        key, value = entry[8 : 8 + length], entry[8 + length :]
        if key == _ARCHITECTURE.encode():
            value = value[:4] + packed_string(new)
        elif key.startswith(f"{old}.".encode()):
            key = new.encode() + key[len(old) :]
        parts.append(struct.pack("<Q", len(key)) + key + value)
    return b"".join(parts)
