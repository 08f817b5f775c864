"""A GGUF file's metadata and tensor table, read with every length checked against the file.

`gguf.GGUFReader` takes seconds over a vocabulary and trusts the file; llama.cpp aborts the process on some damaged
ones. This reads what irm-lite needs in milliseconds and refuses a damaged file in one line, before either sees it.
Format: the GGUF specification in ggml's docs/gguf.md, version 2 and 3, little-endian.
"""

import math
import struct
import time
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from irm_lite.core.errors import InputError
from irm_lite.core.files.gguf_types import F32, FORMATS, ValueType
from irm_lite.core.files.magic import LONGEST, format_of
from irm_lite.core.files.reading import open_ordinary

if TYPE_CHECKING:
    import numpy as np

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_LATER = 100  # a number of this size is damage, no later version
_MAX_ENTRIES = 100_000  # of metadata or tensors; real files have thousands at most
_MAX_ITEMS = 1 << 22  # of an array; the largest vocabularies have a quarter of a million
_MAX_HEADER = 64 << 20  # bytes; a vocabulary with its merges takes some ten million
_MAX_STRING = 1 << 20  # bytes; chat templates have some thousands
_MAX_DIMENSIONS = 4
_MAX_NAME = 63  # bytes of a tensor's name, as ggml has it
_MAX_ALIGNMENT = 1 << 20
_KEPT = 4  # headers that are remembered
_SETTLED = 2_000_000_000  # ns: a file that was written later can be written again under the same time (FAT counts in 2 s)
_PIECE = 1 << 20  # the header is read in pieces of this size: mapping a 40 GB file would need 40 GB of address space


@dataclass(frozen=True)
class TensorInfo:
    """A row of the tensor table. `shape` is in ggml's order, fastest axis first; `type` as in gguf_types.py."""

    name: str
    shape: tuple[int, ...]
    type: int
    offset: int  # from the start of the file
    n_bytes: int


@dataclass(frozen=True)
class ArrayInfo:
    """An array in the metadata: only its place, since vocabularies are large and rarely needed."""

    item_type: int
    length: int
    offset: int  # of its first item, from the start of the file
    n_bytes: int


@dataclass(frozen=True)
class Layout:
    """Where the file's parts are, in bytes from its start."""

    version: int
    n_metadata: int
    metadata_end: int  # the metadata begins at byte 24
    table_end: int  # of the tensors
    alignment: int
    data_start: int
    size: int
    entries: tuple[int, ...]  # where each entry of the metadata begins, in their order


@dataclass(frozen=True)
class GgufHeader:
    """The checked header of one GGUF file."""

    path: Path
    metadata: dict[str, Any]  # scalars and strings; arrays as ArrayInfo
    tensors: dict[str, TensorInfo]
    layout: "Layout"

    @property
    def architecture(self) -> str:
        return str(self.metadata.get("general.architecture", ""))

    def integer(self, key: str, default: int | None = None) -> int:
        """A whole number of the metadata. Raises InputError where it is missing without default, or no number."""
        value = self.metadata.get(key, default)
        if not isinstance(value, int) or isinstance(value, bool):
            raise InputError(
                f"{self.path}: {key} is {'missing' if value is None else 'no whole number'}", "give a Llama-like model"
            )
        return value

    def read_f32(self, name: str) -> "np.ndarray[tuple[int, ...], np.dtype[np.float32]]":
        """The values of an F32 tensor, flat, as a copy."""
        import numpy as np

        info = self.tensors[name]
        if info.type != F32:
            raise InputError(f"{self.path}: tensor {name} is not F32")
        return np.frombuffer(self._bytes(info.offset, info.n_bytes), dtype="<f4").astype(np.float32)

    def read_strings(self, array: ArrayInfo) -> list[bytes]:
        """The items of an array of strings, undecoded."""
        data, strings, at = self._bytes(array.offset, array.n_bytes), [], 0
        for _ in range(array.length):
            start = at + 8
            at = start + int.from_bytes(data[at:start], "little")
            strings.append(data[start:at])
        return strings

    def read_numbers(self, array: ArrayInfo) -> "np.ndarray[tuple[int, ...], np.dtype[Any]]":
        """The items of an array of numbers or truth values."""
        import numpy as np

        return np.frombuffer(self._bytes(array.offset, array.n_bytes), dtype=FORMATS[array.item_type])

    def read_bytes(self, array: ArrayInfo) -> bytes:
        """An array of the metadata as it stands in the file."""
        return self._bytes(array.offset, array.n_bytes)

    def _bytes(self, offset: int, n_bytes: int) -> bytes:
        with open_ordinary(self.path) as file:
            file.seek(offset)
            data = file.read(n_bytes)
        if len(data) != n_bytes:
            raise InputError(f"{self.path} became shorter while it was read", "let nothing change it meanwhile")
        return data


class _Cursor:
    """Reads forward through the file; every read past its end is an error."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self.file, self.path, self.position = file, path, 0
        self.size = file.seek(0, 2)
        self.data = bytearray()
        file.seek(0)

    def damaged(self, why: str) -> InputError:
        return InputError(f"{self.path} is not a whole GGUF file ({why})", "download or export it again")

    def skip(self, n_bytes: int) -> int:
        start = self.position
        if n_bytes < 0 or start + n_bytes > self.size:
            raise self.damaged(f"it ends at byte {self.size}, in the middle of its header")
        if start + n_bytes > _MAX_HEADER:
            raise self.damaged("its header is absurdly long")
        self.position = start + n_bytes
        if self.position > len(self.data):
            self.data += self.file.read(max(_PIECE, self.position - len(self.data)))
        return start

    def scalar(self, form: str) -> Any:
        return struct.unpack_from(form, self.data, self.skip(struct.calcsize(form)))[0]

    def string(self) -> str:
        length = self.scalar("<Q")
        if length > _MAX_STRING:
            raise self.damaged("a text is absurdly long")
        start = self.skip(length)
        return self.data[start : start + length].decode("utf-8", errors="replace")

    def value(self, kind: int) -> Any:
        if kind in FORMATS:
            return self.scalar(FORMATS[kind])
        if kind == ValueType.STRING:
            return self.string()
        if kind != ValueType.ARRAY:
            raise self.damaged(f"unknown metadata type {kind}")
        item, length = self.scalar("<I"), self.scalar("<Q")
        start = self.position
        if item not in FORMATS and item != ValueType.STRING:
            raise self.damaged(f"an array of type {item}")
        width = 8 if item == ValueType.STRING else struct.calcsize(FORMATS[item])
        if length * width > self.size:
            raise self.damaged("an array is longer than the file")
        if length > _MAX_ITEMS:
            raise self.damaged("an array is absurdly long")
        if item == ValueType.STRING:
            for _ in range(length):
                self.skip(self.scalar("<Q"))
        else:
            self.skip(width * length)
        return ArrayInfo(item, length, start, self.position - start)


def read_header(path: Path | str) -> GgufHeader:
    """Read and check a GGUF file's header; those of the last few files are remembered, as long as they are not written to.

    Raises InputError where the file is missing, is not GGUF, or is shorter than its own tensor table says.
    """
    path = Path(path)
    stamp = _stamp(path)
    try:
        header = _read(path) if stamp is None else _remembered(path, stamp)
    except FileNotFoundError:
        raise InputError(f"there is no file {path}", "check the path") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error})", "check the path and its rights") from None
    return replace(header, metadata=dict(header.metadata), tensors=dict(header.tensors))  # the caller's own to change


def _stamp(path: Path) -> tuple[int, ...] | None:
    """What is another once the file is; None of a file that was written just now, or that cannot be asked."""
    try:
        about = path.stat()
    except (OSError, ValueError):
        return None
    if time.time_ns() - max(about.st_mtime_ns, about.st_ctime_ns) < _SETTLED:
        return None
    return about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns


@lru_cache(_KEPT)
def _remembered(path: Path, stamp: tuple[int, ...]) -> GgufHeader:
    """The header of the file as it was when `stamp` was taken."""
    return _read(path)


def _read(path: Path) -> GgufHeader:
    with open_ordinary(path) as file:
        start = file.read(LONGEST)
        if not start.startswith(_MAGIC):
            what, hint = format_of(start) or ("", "give a file in GGUF, llama.cpp's format")
            raise InputError(f"{path} is not a GGUF file{what and f' but {what}'}", hint)
        return _parse(_Cursor(file, path), path)


def require_model(header: GgufHeader) -> None:
    """Raise InputError where the file is a control vector, an adapter or one part of a split model."""
    if header.architecture == "controlvector":
        raise InputError(f"{header.path} is a control vector, not a model", "give the model's .gguf here")
    if header.metadata.get("general.type") == "adapter":
        raise InputError(f"{header.path} is a LoRA adapter, not a model", "give the model's .gguf here")
    if header.integer("split.count", 1) > 1:
        raise InputError(f"{header.path} is one part of a split GGUF", "join the parts with llama-gguf-split --merge")


def _other_version(cursor: _Cursor, version: int) -> InputError:
    """The error for a version that is not known: of a file whose bytes are in the other order it is one that is, turned round."""
    if int.from_bytes(version.to_bytes(4, "big"), "little") in _VERSIONS:
        return InputError(
            f"{cursor.path} is a big-endian GGUF, for other processors",
            "give the little-endian one, or turn a copy of it by `gguf-convert-endian FILE little` of the package gguf",
        )
    what, known = f"GGUF version {version}", f"{' and '.join(map(str, _VERSIONS))} are known"
    if max(_VERSIONS) < version < _LATER:
        return InputError(f"{cursor.path} is of {what}; {known}", f"update irm-lite, or give a file of version {max(_VERSIONS)}")
    return cursor.damaged(f"{what}; {known}")


def _parse(cursor: _Cursor, path: Path) -> GgufHeader:
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    cursor.skip(4)
    version = cursor.scalar("<I")
    if version not in _VERSIONS:
        raise _other_version(cursor, version)
    n_tensors, n_metadata = cursor.scalar("<Q"), cursor.scalar("<Q")
    if max(n_tensors, n_metadata) > _MAX_ENTRIES:
        raise cursor.damaged("its table of contents is absurdly long")
    metadata: dict[str, Any] = {}
    entries: list[int] = []
    for _ in range(n_metadata):
        entries.append(cursor.position)
        key = cursor.string()
        if key in metadata:
            raise cursor.damaged(f"the key {key[:80]!r} appears twice")
        metadata[key] = cursor.value(cursor.scalar("<I"))
    metadata_end = cursor.position
    table: list[tuple[str, tuple[int, ...], int, int]] = []
    for _ in range(n_tensors):
        name = cursor.string()
        if len(name.encode()) > _MAX_NAME:
            raise cursor.damaged(f"a tensor's name is longer than {_MAX_NAME} bytes")
        dimensions = cursor.scalar("<I")
        if dimensions > _MAX_DIMENSIONS:
            raise cursor.damaged(f"tensor {name!r} has {dimensions} dimensions")
        shape = tuple(cursor.scalar("<Q") for _ in range(dimensions))
        table.append((name, shape, cursor.scalar("<I"), cursor.scalar("<Q")))
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or not 0 < alignment <= _MAX_ALIGNMENT or alignment & (alignment - 1):
        raise cursor.damaged(f"alignment {alignment!s:.40}")
    start = -(-cursor.position // alignment) * alignment
    tensors: dict[str, TensorInfo] = {}
    for name, shape, kind, offset in table:
        try:
            block, size = GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
        except (ValueError, KeyError):
            hint = "pip install -U gguf, which may know it, or give the model in another quantisation"
            raise InputError(f"{path}: tensor {name!r} is of type {kind}, which the package gguf does not know", hint) from None
        if shape and shape[0] % block:
            raise cursor.damaged(f"tensor {name!r} has rows of {shape[0]} elements, its type comes in blocks of {block}")
        n_bytes = math.prod(shape) // block * size
        if start + offset + n_bytes > cursor.size:
            raise cursor.damaged(f"tensor {name!r} ends after the file does: it was cut short")
        if name in tensors:
            raise cursor.damaged(f"tensor {name!r} appears twice")
        tensors[name] = TensorInfo(name, shape, kind, start + offset, n_bytes)
    layout = Layout(version, n_metadata, metadata_end, cursor.position, alignment, start, cursor.size, tuple(entries))
    return GgufHeader(path, metadata, tensors, layout)
