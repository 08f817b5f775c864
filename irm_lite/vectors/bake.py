"""Static vectors baked into a copy of a GGUF as biases, for programs that know no control vectors; and taken out again.

In llama.cpp's llama graph `blk.N.ffn_down.bias` is added where a control vector is, at the output of block N, and
`blk.N.attn_output.bias` at the paper's site, after attention. Both are optional tensors of any dense llama file.

The copy keeps the original's bytes in their order: only the counts at the start change, our keys follow its metadata, our
rows follow its tensor table, our data its data. Where an architecture takes no biases but is llama's otherwise, the copy is
written as llama (as_llama.py). What is needed to take all that out again stands in our keys.
"""

import hashlib
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from irm_lite.base.fingerprint import BAKED
from irm_lite.core.errors import InputError
from irm_lite.core.files.atomic import atomic_path, free_space, require_new
from irm_lite.core.files.gguf_header import GgufHeader, Layout, read_header, require_model
from irm_lite.core.files.gguf_types import F32
from irm_lite.core.types import FloatArray, Progress, unwatched
from irm_lite.steering.layers import format_layers
from irm_lite.vectors.as_llama import LLAMA, OTHERWISE, SAME_AS_LLAMA, Turn, renamed, require_same_graph, turned_pieces, turns
from irm_lite.vectors.baked_file import (
    NO_DIGEST,
    OWN,
    START,
    metadata_entry,
    original_values,
    own_keys,
    patched,
    tensor_rows,
)
from irm_lite.vectors.biases import Biases

# Architectures whose graph takes both biases where there were none, and adds them unscaled: tests/vectors/test_bake.py runs each
# in llama.cpp. (Granite and MiniCPM scale what a block adds; Qwen 3 and Gemma refuse a bias; Phi-2 has its own.)
BAKEABLE = (LLAMA, "mistral3")


@dataclass(frozen=True)
class _Insertions:
    """What the copy has beside the original's bytes, and where."""

    n_tensors: int  # rows in `table`
    n_keys: int
    original: bytes  # its metadata, by llama's names where it is written as llama
    metadata: bytes
    table: bytes
    gap: int  # zeros between the header and the data, in the place of the original's
    padding: int  # zeros after the original's data
    data: bytes
    patches: dict[int, bytes]  # changed values, by offset from the start of the original
    turns: list[Turn]

    def size(self, layout: Layout) -> int:
        """Bytes of the whole copy."""
        head = START + len(self.original) + len(self.metadata) + layout.table_end - layout.metadata_end + len(self.table)
        return head + self.gap + layout.size - layout.data_start + self.padding + len(self.data)


def bake(gguf: Path, biases: Biases, out: Path, *, force: bool = False, on_progress: Progress = unwatched) -> None:
    """Write a copy of `gguf` with the biases to `out`, in constant memory. Biases that exist already are added to.

    Raises InputError where the architecture ignores biases, the shapes differ, the file is baked already, or `out` is
    the input, exists already, or has too little space.
    """
    header = read_header(gguf)
    require_bakeable(header)
    _require_fit(header, biases)
    layout, insertions = header.layout, _insertions(header, biases)
    _require_place(gguf, out, insertions.size(layout), force)
    with atomic_path(out) as temporary, gguf.open("rb") as source, temporary.open("wb") as target:
        digest = _write_header(source, target, header, insertions)
        done = layout.data_start
        data = turned_pieces(source, layout.data_start, layout.size, insertions.turns, digest=digest)
        for piece in patched(data, layout.data_start, insertions.patches):
            target.write(piece)
            done += len(piece)
            on_progress(done >> 20, layout.size >> 20, "MiB")
        target.write(bytes(insertions.padding) + insertions.data)
        target.seek(START + len(insertions.original) + insertions.metadata.index(NO_DIGEST.encode()))
        target.write(digest.hexdigest().encode())


def _require_fit(header: GgufHeader, biases: Biases) -> None:
    """Raise InputError where the biases are for another shape, or hold NaN or infinity."""
    n_layers, hidden_size = (header.integer(f"{header.architecture}.{key}") for key in ("block_count", "embedding_length"))
    if max(biases.values) >= n_layers or any(value.shape != (hidden_size,) for value in biases.values.values()):
        raise InputError(
            f"biases for blocks {format_layers(biases.values)} do not fit {header.path}, "
            f"which has {n_layers} blocks of {hidden_size}",
            "use the model that they were made for",
        )
    if not all(np.isfinite(value).all() for value in biases.values.values()):
        raise InputError("the biases hold NaN or infinity", "scale them less")


def _insertions(header: GgufHeader, biases: Biases) -> _Insertions:
    """Raises InputError where a bias that exists is not F32, or bytes follow the last tensor."""
    added = {f"blk.{layer}.{biases.slot}.bias": value.astype("<f4") for layer, value in sorted(biases.values.items())}
    patches: dict[int, bytes] = {}
    originals: dict[str, FloatArray] = {}
    for name in [name for name in added if name in header.tensors]:
        info, value = header.tensors[name], added.pop(name)
        if info.type != F32 or info.shape != value.shape:
            raise InputError(f"{header.path}: {name} is not {value.size} floats", "bake into a copy whose biases are F32")
        originals[name] = header.read_f32(name)
        patches[info.offset] = (originals[name] + value).astype("<f4").tobytes()
    layout = header.layout
    data_size = layout.size - layout.data_start
    padding = -data_size % layout.alignment
    end = max(info.offset + info.n_bytes for info in header.tensors.values()) - layout.data_start
    if end + -end % layout.alignment != data_size + padding:  # llama.cpp wants each tensor right after the one before
        raise InputError(f"{header.path} has bytes after its last tensor", "make it again with llama.cpp's own tools")
    table, data = tensor_rows(added, data_size + padding, layout.alignment)
    old = header.architecture
    new = LLAMA if old in SAME_AS_LLAMA else old
    keys = own_keys(header, biases, originals, "" if new == old else old)
    metadata = b"".join(metadata_entry(name, value) for name, value in keys.items())
    with header.path.open("rb") as file:
        file.seek(START)
        original = renamed(file.read(layout.metadata_end - START), layout.entries, old, new)
    head = START + len(original) + layout.table_end - layout.metadata_end
    gap = -(head + len(metadata) + len(table)) % layout.alignment
    return _Insertions(len(added), len(keys), original, metadata, table, gap, padding, data, patches, turns(header, old))


def _write_header(source: BinaryIO, target: BinaryIO, header: GgufHeader, insertions: _Insertions) -> Any:
    """Everything before the data; the SHA-256 of the original so far, whose reading goes on at its data."""
    layout = header.layout
    counts = (layout.version, len(header.tensors) + insertions.n_tensors, layout.n_metadata + insertions.n_keys)
    start, metadata = source.read(START), source.read(layout.metadata_end - START)
    table, rest = source.read(layout.table_end - layout.metadata_end), source.read(layout.data_start - layout.table_end)
    if any(rest):  # undo writes zeros there
        raise InputError(f"{header.path} has bytes between its header and its data", "make it again with llama.cpp's own tools")
    target.write(start[:4] + struct.pack("<IQQ", *counts))
    target.write(insertions.original + insertions.metadata + table + insertions.table + bytes(insertions.gap))
    return hashlib.sha256(start + metadata + table + rest)


def unbake(gguf: Path, out: Path, *, force: bool = False, on_progress: Progress = unwatched) -> None:
    """Write the original of a baked file to `out`, byte for byte: its SHA-256 is compared with the one that was kept.

    Raises InputError where the file is not a baked one, or was changed since.
    """
    header = read_header(gguf)
    require_model(header)
    kept, layout = header.metadata, header.layout
    if BAKED not in kept:
        raise InputError(f"{gguf} was not baked by irm-lite", "give a file that `irm-lite bake` wrote")
    changed = InputError(f"{gguf} was changed after it was baked", "get the original from where it came from")
    original = _original(header)
    if original is None:
        raise changed
    data_start, size = original.data_start, original.size
    _require_place(gguf, out, size, force)
    patches = original_values(header)
    digest = hashlib.sha256()
    with atomic_path(out) as temporary, gguf.open("rb") as source, temporary.open("wb") as target:
        head = source.read(4) + struct.pack("<IQQ", original.version, original.n_tensors, original.n_metadata)
        source.seek(START)
        entries = layout.entries[: original.n_metadata]
        metadata = source.read(layout.entries[original.n_metadata] - START)
        head += renamed(metadata, entries, header.architecture, original.architecture)
        if len(head) != original.metadata_end:
            raise changed
        source.seek(layout.metadata_end)
        head += source.read(original.table_size)
        head += bytes(data_start - len(head))
        digest.update(head)
        target.write(head)
        source.seek(layout.data_start)
        done, end = data_start, layout.data_start + size - data_start
        data = turned_pieces(source, layout.data_start, end, original.turns, back=True)
        for piece in patched(data, layout.data_start, patches):
            digest.update(piece)
            target.write(piece)
            done += len(piece)
            on_progress(done >> 20, size >> 20, "MiB")
        if digest.hexdigest() != kept[BAKED]:
            raise changed


@dataclass(frozen=True)
class _Original:
    """What the keys of a baked file say of its original, in bytes from its start, and what was moved."""

    version: int
    n_tensors: int
    n_metadata: int
    metadata_end: int
    table_size: int
    data_start: int
    size: int
    architecture: str
    turns: list[Turn]


def _original(header: GgufHeader) -> _Original | None:
    """None where the keys do not fit the file."""
    layout = header.layout
    names = ("version", "n_tensors", "n_metadata", "metadata_end", "table_size", "data_start", "size")
    architecture = str(header.metadata.get(OWN + "architecture", header.architecture))
    try:
        sizes = {name: header.integer(OWN + name) for name in names}
        original = _Original(**sizes, architecture=architecture, turns=turns(header, architecture))
    except InputError:
        return None
    consistent = original.version in (2, 3) and original.n_tensors >= 0 and 0 <= original.n_metadata < len(layout.entries)
    consistent &= 0 < original.table_size <= layout.table_end - layout.metadata_end and original.metadata_end >= START
    consistent &= original.metadata_end + original.table_size <= original.data_start <= original.size
    consistent &= original.size - original.data_start <= layout.size - layout.data_start
    ends = (turn.end - layout.data_start for turn in original.turns)
    consistent &= max(ends, default=0) <= original.size - original.data_start
    return original if consistent else None


def require_bakeable(header: GgufHeader) -> None:
    """Raise InputError where llama.cpp would ignore or refuse biases in this file, or it is baked already."""
    require_model(header)
    if header.architecture not in (*BAKEABLE, *SAME_AS_LLAMA):
        raise InputError(
            f"{header.path} is {header.architecture}, for which baking is not known to work in llama.cpp",
            f"{OTHERWISE}; baking is tested for {', '.join((*BAKEABLE, *SAME_AS_LLAMA))}",
        )
    if header.integer(f"{header.architecture}.expert_count", 0) > 0:
        raise InputError(
            f"{header.path} is a mixture of experts, which has no place for a bias", "use the control vector with --control-vector"
        )
    if not header.tensors:
        raise InputError(f"{header.path} has no tensors", "give a model")
    if BAKED in header.metadata:
        raise InputError(f"{header.path} is baked already", "take that out with bake --undo first, or bake all vectors at once")
    if header.architecture in SAME_AS_LLAMA:
        require_same_graph(header)


def _require_place(source: Path, out: Path, size: int, force: bool) -> None:
    """Raise InputError where `out` cannot take the copy of `size` bytes."""
    if out.exists() and out.samefile(source):
        raise InputError(f"{out} is the input", "choose another -o")
    if out.is_dir():
        raise InputError(f"{out} is a folder", "name a file with -o")
    require_new(out, force)
    free = free_space(out.parent)
    if free < size:
        raise InputError(f"{out.parent} has {free / 1e9:.1f} GB free, {out.name} needs {size / 1e9:.1f} GB", "make room")
