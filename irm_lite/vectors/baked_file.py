"""What a baked file holds beside its original: our keys, our rows of the tensor table, our data; and how its data are copied."""

import struct
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

import numpy as np

from irm_lite.base.fingerprint import BAKED
from irm_lite.core.errors import InputError
from irm_lite.core.files.gguf_header import ArrayInfo, GgufHeader, TensorInfo
from irm_lite.core.files.gguf_types import F32, ValueType, packed_string
from irm_lite.core.types import FloatArray
from irm_lite.steering.layers import format_layers
from irm_lite.vectors.biases import Biases

OWN = "irm.bake."
START = 24  # bytes of magic, version and counts
NO_DIGEST = "0" * 64  # stands in its key until the original has been read to its end
_ORIGINAL = OWN + "original."  # + a tensor's name: the values that it had
_PIECE = 4 << 20  # bytes copied at once


def own_keys(header: GgufHeader, biases: Biases, originals: Mapping[str, FloatArray], architecture: str = "") -> dict[str, Any]:
    """What is needed to take the biases out again, and where they come from. `originals`: the values that were added to;
    `architecture`: the original's, where the copy has another."""
    layout = header.layout
    return {
        BAKED: NO_DIGEST,
        OWN + "version": np.uint32(layout.version),
        OWN + "n_tensors": np.uint64(len(header.tensors)),
        OWN + "n_metadata": np.uint64(layout.n_metadata),
        OWN + "metadata_end": np.uint64(layout.metadata_end),
        OWN + "table_size": np.uint64(layout.table_end - layout.metadata_end),
        OWN + "data_start": np.uint64(layout.data_start),
        OWN + "size": np.uint64(layout.size),
        **({OWN + "architecture": architecture} if architecture else {}),
        OWN + "slot": biases.slot,
        OWN + "layers": format_layers(biases.values),
        **{f"{OWN}vector.{key}": str(value) for key, value in biases.provenance.items()},
        **{_ORIGINAL + name: value for name, value in originals.items()},
    }


def metadata_entry(name: str, value: Any) -> bytes:
    """One entry of the metadata, as the GGUF specification has it."""
    if isinstance(value, str):
        return packed_string(name) + struct.pack("<I", ValueType.STRING) + packed_string(value)
    if isinstance(value, np.uint32):
        return packed_string(name) + struct.pack("<II", ValueType.UINT32, int(value))
    if isinstance(value, np.ndarray):
        return (
            packed_string(name)
            + struct.pack("<IIQ", ValueType.ARRAY, ValueType.FLOAT32, value.size)
            + value.astype("<f4").tobytes()
        )
    return packed_string(name) + struct.pack("<IQ", ValueType.UINT64, int(value))


def tensor_rows(values: Mapping[str, FloatArray], offset: int, alignment: int) -> tuple[bytes, bytes]:
    """Rows of the tensor table and the data of new F32 tensors, the first at `offset` from the start of the data."""
    table, blob = b"", b""
    for name, value in values.items():
        table += packed_string(name) + struct.pack("<IQIQ", 1, value.size, F32, offset + len(blob))
        data = value.tobytes()
        blob += data + bytes(-len(data) % alignment)
    return table, blob


def original_values(header: GgufHeader) -> dict[int, bytes]:
    """The kept values of biases that were added to, by their offset in the baked file."""
    patches = {}
    for key, value in header.metadata.items():
        info: TensorInfo | None = header.tensors.get(key.removeprefix(_ORIGINAL)) if key.startswith(_ORIGINAL) else None
        if info is not None and isinstance(value, ArrayInfo) and 4 * value.length == info.n_bytes:
            with header.path.open("rb") as file:
                file.seek(value.offset)
                patches[info.offset] = file.read(info.n_bytes)
    return patches


def patched(pieces: Iterator[bytes], start: int, patches: Mapping[int, bytes]) -> Iterator[bytes]:
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


def pieces(source: BinaryIO, n_bytes: int, digest: Any = None) -> Iterator[bytes]:
    """The next n_bytes of the file in pieces, hashed as they are read."""
    while n_bytes > 0:
        piece = source.read(min(_PIECE, n_bytes))
        if not piece:
            raise InputError(f"{source.name} became shorter while it was read", "let nothing change it meanwhile")
        if digest is not None:
            digest.update(piece)
        n_bytes -= len(piece)
        yield piece
