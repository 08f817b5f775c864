"""Static vectors baked into a copy of a GGUF as biases, for programs that know no control vectors; and taken out again.

In llama.cpp's llama graph `blk.N.ffn_down.bias` is added where a control vector is, at the output of block N, and
`blk.N.attn_output.bias` at the paper's site, after attention. Both are optional tensors of any dense llama file.

The copy keeps the original's bytes in their order: only the counts at the start change, our keys follow its metadata, our
rows follow its tensor table, our data its data. What is needed to take all that out again stands in our keys.
"""

import hashlib
import os
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from irm_lite.core.errors import InputError
from irm_lite.core.files.atomic import atomic_path, free_space
from irm_lite.core.files.gguf_header import ArrayInfo, GgufHeader, TensorInfo, read_header, require_model
from irm_lite.core.types import FloatArray, Progress
from irm_lite.steering.layers import format_layers
from irm_lite.vectors.biases import Biases

# Architectures whose graph takes both biases where there were none, and adds them unscaled: tests/vectors/test_bake.py runs each
# in llama.cpp. (Granite and MiniCPM scale what a block adds; Qwen and Gemma refuse a bias; Phi-2 has its own.)
BAKEABLE = ("llama", "mistral3")

_OWN = "irm.bake."
_ORIGINAL = _OWN + "original."  # + a tensor's name: the values that it had
_F32 = 0
_START = 24  # magic, version, counts
_PIECE = 4 << 20  # bytes copied at once
_UINT32, _FLOAT32, _STRING, _ARRAY, _UINT64 = 4, 6, 8, 9, 10  # types of metadata


def bake(
    gguf: Path, biases: Biases, out: Path, *, force: bool = False, on_progress: Progress = lambda done, of, what: None
) -> None:
    """Write a copy of `gguf` with the biases to `out`, in constant memory. Biases that exist already are added to.

    Raises InputError where the architecture ignores biases, the shapes differ, the file is baked already, the
    place is the input's, taken, or too small.
    """
    header = read_header(gguf)
    require_bakeable(header)
    n_layers, hidden_size = (header.integer(f"{header.architecture}.{key}") for key in ("block_count", "embedding_length"))
    if max(biases.values) >= n_layers or any(value.shape != (hidden_size,) for value in biases.values.values()):
        raise InputError(
            f"biases for blocks {format_layers(biases.values)} do not fit {gguf}, which has {n_layers} blocks of {hidden_size}",
            "use the model that they were made for",
        )
    if not all(np.isfinite(value).all() for value in biases.values.values()):
        raise InputError("the biases hold NaN or infinity", "scale them less")
    names = {f"blk.{layer}.{biases.slot}.bias": value.astype("<f4") for layer, value in sorted(biases.values.items())}
    patches: dict[int, bytes] = {}  # by offset from the start of the original
    originals: dict[str, FloatArray] = {}
    for name in [name for name in names if name in header.tensors]:
        info = header.tensors[name]
        if info.type != _F32 or info.shape != (hidden_size,):
            raise InputError(f"{gguf}: {name} is not {hidden_size} floats", "bake into a copy whose biases are F32")
        originals[name] = header.read_f32(name)
        patches[info.offset] = (originals[name] + names.pop(name)).astype("<f4").tobytes()

    layout = header.layout
    data_size = layout.size - layout.data_start
    padding = -data_size % layout.alignment
    end = max(info.offset + info.n_bytes for info in header.tensors.values()) - layout.data_start
    if end + -end % layout.alignment != data_size + padding:  # llama.cpp wants each tensor right after the one before
        raise InputError(f"{gguf} has bytes after its last tensor", "make it again with llama.cpp's own tools")
    table, blob = _rows(names, data_size + padding, layout.alignment)
    keys = _keys(header, biases, originals)
    metadata = b"".join(_key(name, value) for name, value in keys.items())
    start = layout.table_end + len(metadata) + len(table)
    gap = -start % layout.alignment
    total = start + gap + data_size + padding + len(blob)
    _require_place(gguf, out, total, force)
    counts = struct.pack("<IQQ", layout.version, len(header.tensors) + len(names), layout.n_metadata + len(keys))
    with atomic_path(out) as temporary, gguf.open("rb") as source, temporary.open("wb") as target:
        digest = hashlib.sha256(original_start := source.read(_START))
        target.write(original_start[:4] + counts)
        original_metadata = source.read(layout.metadata_end - _START)
        original_table = source.read(layout.table_end - layout.metadata_end)
        rest = source.read(layout.data_start - layout.table_end)
        if any(rest):  # undo writes zeros there
            raise InputError(f"{gguf} has bytes between its header and its data", "make it again with llama.cpp's own tools")
        for part in (original_metadata, original_table, rest):
            digest.update(part)
        target.write(original_metadata + metadata + original_table + table + bytes(gap))
        done = layout.data_start
        for piece in _patched(_pieces(source, data_size, digest), layout.data_start, patches):
            target.write(piece)
            done += len(piece)
            on_progress(done >> 20, layout.size >> 20, "MiB")
        target.write(bytes(padding) + blob)
        # The digest is known only now; its key holds as many zeros.
        target.seek(layout.metadata_end + metadata.index(b"0" * 64))
        target.write(digest.hexdigest().encode())


def unbake(gguf: Path, out: Path, *, force: bool = False, on_progress: Progress = lambda done, of, what: None) -> None:
    """Write the original of a baked file to `out`, byte for byte: its SHA-256 is compared with the one that was kept.

    Raises InputError where the file is not a baked one, or was changed since.
    """
    header = read_header(gguf)
    require_model(header)
    kept, layout = header.metadata, header.layout
    if _OWN + "sha256" not in kept:
        raise InputError(f"{gguf} was not baked by irm-lite", "give a file that `irm-lite bake` wrote")
    try:
        version, n_tensors, n_metadata, metadata_end, table_size, data_start, size = (
            header.integer(_OWN + key)
            for key in ("version", "n_tensors", "n_metadata", "metadata_end", "table_size", "data_start", "size")
        )
        own_metadata = layout.metadata_end - metadata_end
        consistent = own_metadata > 0 and 0 < table_size <= layout.table_end - layout.metadata_end
        consistent &= metadata_end >= _START and metadata_end + table_size <= data_start <= size
        consistent &= data_start <= layout.data_start and size - data_start <= layout.size - layout.data_start
        consistent &= version in (2, 3) and min(n_tensors, n_metadata) >= 0
    except InputError:
        consistent = False
    if not consistent:
        raise InputError(f"{gguf} was changed after it was baked", "take the original from where you had it")
    _require_place(gguf, out, size, force)
    patches = _original_values(header, gguf)
    digest = hashlib.sha256()
    with atomic_path(out) as temporary, gguf.open("rb") as source, temporary.open("wb") as target:
        head = source.read(4) + struct.pack("<IQQ", version, n_tensors, n_metadata)
        source.seek(_START)
        head += source.read(metadata_end - _START)
        source.seek(layout.metadata_end)
        head += source.read(table_size)
        head += bytes(data_start - len(head))
        digest.update(head)
        target.write(head)
        source.seek(layout.data_start)
        done = data_start
        for piece in _patched(_pieces(source, size - data_start), layout.data_start, patches):
            digest.update(piece)
            target.write(piece)
            done += len(piece)
            on_progress(done >> 20, size >> 20, "MiB")
        if digest.hexdigest() != kept[_OWN + "sha256"]:
            raise InputError(f"{gguf} was changed after it was baked", "take the original from where you had it")


def require_bakeable(header: GgufHeader) -> None:
    """Raise InputError where llama.cpp would ignore or refuse biases in this file, or it is baked already."""
    require_model(header)
    if header.architecture not in BAKEABLE:
        raise InputError(
            f"{header.path} is {header.architecture}, for which baking is not known to work in llama.cpp",
            f"use the control vector with --control-vector; baking is tested for {', '.join(BAKEABLE)}",
        )
    if header.integer(f"{header.architecture}.expert_count", 0) > 0:
        raise InputError(f"{header.path} is a mixture of experts, which has no place for a bias", "use the control vector")
    if not header.tensors:
        raise InputError(f"{header.path} has no tensors", "give a model")
    if _OWN + "sha256" in header.metadata:
        raise InputError(f"{header.path} is baked already", "take that out with bake --undo first, or bake all vectors at once")


def _require_place(source: Path, out: Path, size: int, force: bool) -> None:
    if out.exists() and out.samefile(source):
        raise InputError(f"{out} is the input", "choose another -o")
    if out.is_dir():
        raise InputError(f"{out} is a folder", "name a file with -o")
    if os.path.lexists(out) and not force:  # a link that leads nowhere is somebody's too
        raise InputError(f"{out} exists", "choose another -o, or say --force")
    folder = next(parent for parent in out.absolute().parents if parent.exists())
    free = free_space(folder)
    if free < size:
        raise InputError(f"{folder} has {free / 1e9:.1f} GB free, {out.name} needs {size / 1e9:.1f} GB", "make room")


def _rows(values: Mapping[str, FloatArray], offset: int, alignment: int) -> tuple[bytes, bytes]:
    """Rows of the tensor table and the data of new F32 tensors, the first at `offset` from the start of the data."""
    table, blob = b"", b""
    for name, value in values.items():
        table += _string(name) + struct.pack("<IQIQ", 1, value.size, _F32, offset + len(blob))
        data = value.tobytes()
        blob += data + bytes(-len(data) % alignment)
    return table, blob


def _keys(header: GgufHeader, biases: Biases, originals: Mapping[str, FloatArray]) -> dict[str, Any]:
    layout = header.layout
    return {
        _OWN + "sha256": "0" * 64,
        _OWN + "version": np.uint32(layout.version),
        _OWN + "n_tensors": np.uint64(len(header.tensors)),
        _OWN + "n_metadata": np.uint64(layout.n_metadata),
        _OWN + "metadata_end": np.uint64(layout.metadata_end),
        _OWN + "table_size": np.uint64(layout.table_end - layout.metadata_end),
        _OWN + "data_start": np.uint64(layout.data_start),
        _OWN + "size": np.uint64(layout.size),
        _OWN + "slot": biases.slot,
        _OWN + "layers": format_layers(biases.values),
        **{f"{_OWN}vector.{key}": str(value) for key, value in biases.provenance.items()},
        **{_ORIGINAL + name: value for name, value in originals.items()},
    }


def _key(name: str, value: Any) -> bytes:
    """One entry of the metadata, as the GGUF specification has it."""
    if isinstance(value, str):
        return _string(name) + struct.pack("<I", _STRING) + _string(value)
    if isinstance(value, np.uint32):
        return _string(name) + struct.pack("<II", _UINT32, int(value))
    if isinstance(value, np.ndarray):
        return _string(name) + struct.pack("<IIQ", _ARRAY, _FLOAT32, value.size) + value.astype("<f4").tobytes()
    return _string(name) + struct.pack("<IQ", _UINT64, int(value))


def _string(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _original_values(header: GgufHeader, gguf: Path) -> dict[int, bytes]:
    """The kept values of biases that were added to, by their offset in the baked file."""
    patches = {}
    for key, value in header.metadata.items():
        info: TensorInfo | None = header.tensors.get(key.removeprefix(_ORIGINAL)) if key.startswith(_ORIGINAL) else None
        if info is not None and isinstance(value, ArrayInfo) and 4 * value.length == info.n_bytes:
            with gguf.open("rb") as file:
                file.seek(value.offset)
                patches[info.offset] = file.read(info.n_bytes)
    return patches


def _pieces(source: BinaryIO, n_bytes: int, digest: Any = None) -> Iterator[bytes]:
    """The next n_bytes of the file in pieces."""
    while n_bytes > 0:
        piece = source.read(min(_PIECE, n_bytes))
        if not piece:
            raise InputError(f"{source.name} became shorter while it was read", "leave it alone meanwhile")
        if digest is not None:
            digest.update(piece)
        n_bytes -= len(piece)
        yield piece


def _patched(pieces: Iterator[bytes], start: int, patches: Mapping[int, bytes]) -> Iterator[bytes]:
    """The pieces, the first of which lies at `start`, with the bytes at these offsets replaced."""
    if not patches:
        yield from pieces
        return
    for piece in pieces:
        changed = bytearray(piece)
        for offset, patch in patches.items():
            first, last = max(offset, start), min(offset + len(patch), start + len(piece))
            if first < last:
                changed[first - start : last - start] = patch[first - offset : last - offset]
        yield bytes(changed)
        start += len(piece)
