"""A GGUF file's metadata and tensor table, read with every length checked against the file.

`gguf.GGUFReader` takes seconds over a vocabulary and trusts the file; llama.cpp aborts the process on some damaged
ones. This reads what irm-lite needs in milliseconds and refuses a damaged file in one line, before either sees it.
Format: the GGUF specification in ggml's docs/gguf.md, version 2 and 3, little-endian.
"""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from irm_lite.errors import InputError

if TYPE_CHECKING:
    import numpy as np

_MAGIC = b"GGUF"
_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_STRING, _ARRAY = 8, 9
_MAX_ENTRIES = 1_000_000  # of metadata or tensors; real files have thousands at most
_MAX_DIMENSIONS = 4
_PIECE = 1 << 20  # the header is read in pieces of this size: mapping a 40 GB file would need 40 GB of address space


@dataclass(frozen=True)
class TensorInfo:
    """A row of the tensor table. `shape` is in ggml's order, fastest axis first."""

    name: str
    shape: tuple[int, ...]
    type: int
    offset: int  # from the start of the file
    n_bytes: int


@dataclass(frozen=True)
class ArrayInfo:
    """An array in the metadata: where it lies, since vocabularies are large and seldom wanted."""

    item_type: int
    length: int
    offset: int  # of its first item, from the start of the file


@dataclass(frozen=True)
class Layout:
    """Where the file's parts are, in bytes from its start."""

    version: int
    n_metadata: int
    metadata_end: int  # the metadata begin at byte 24
    table_end: int  # of the tensors
    alignment: int
    data_start: int
    size: int


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
        if info.type != 0:
            raise InputError(f"{self.path}: tensor {name} is not F32")
        with self.path.open("rb") as file:
            file.seek(info.offset)
            return np.frombuffer(file.read(info.n_bytes), dtype="<f4").astype(np.float32)


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
        self.position = start + n_bytes
        if self.position > len(self.data):
            self.data += self.file.read(max(_PIECE, self.position - len(self.data)))
        return start

    def scalar(self, form: str) -> Any:
        return struct.unpack_from(form, self.data, self.skip(struct.calcsize(form)))[0]

    def string(self) -> str:
        length = self.scalar("<Q")
        start = self.skip(length)
        return self.data[start : start + length].decode("utf-8", errors="replace")

    def value(self, kind: int) -> Any:
        if kind in _SCALARS:
            return self.scalar(_SCALARS[kind])
        if kind == _STRING:
            return self.string()
        if kind != _ARRAY:
            raise self.damaged(f"unknown metadata type {kind}")
        item, length = self.scalar("<I"), self.scalar("<Q")
        start = self.position
        if item in _SCALARS:
            self.skip(struct.calcsize(_SCALARS[item]) * length)
        elif item == _STRING:
            if length * 8 > self.size:
                raise self.damaged("an array is longer than the file")
            for _ in range(length):
                self.skip(self.scalar("<Q"))
        else:
            raise self.damaged(f"an array of type {item}")
        return ArrayInfo(item, length, start)


def read_header(path: Path | str) -> GgufHeader:
    """Read and check a GGUF file's header.

    Raises InputError where the file is missing, is not GGUF, or is shorter than its own tensor table says.
    """
    path = Path(path)
    try:
        if path.exists() and not path.is_file():
            raise InputError(f"{path} cannot be read (it is no ordinary file)", "check the path and its rights")
        with path.open("rb") as file:
            if file.read(4) != _MAGIC:
                raise InputError(f"{path} is not a GGUF file", "give a file that ends in .gguf, made for llama.cpp")
            return _parse(_Cursor(file, path), path)
    except FileNotFoundError:
        raise InputError(f"there is no file {path}", "check the path") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error})", "check the path and its rights") from None


def require_model(header: GgufHeader) -> None:
    """Raise InputError where the file is a control vector or one part of a split model."""
    if header.architecture == "controlvector":
        raise InputError(f"{header.path} is a control vector, not a model", "give the model's .gguf here")
    if header.integer("split.count", 1) > 1:
        raise InputError(f"{header.path} is one part of a split GGUF", "join the parts with llama-gguf-split --merge")


def _parse(cursor: _Cursor, path: Path) -> GgufHeader:
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    cursor.skip(4)
    version = cursor.scalar("<I")
    if version not in (2, 3):
        raise cursor.damaged(f"GGUF version {version}; 2 and 3 are known")
    n_tensors, n_metadata = cursor.scalar("<Q"), cursor.scalar("<Q")
    if max(n_tensors, n_metadata) > _MAX_ENTRIES:
        raise cursor.damaged("its table of contents is absurdly long")
    metadata: dict[str, Any] = {}
    for _ in range(n_metadata):
        key = cursor.string()
        metadata[key] = cursor.value(cursor.scalar("<I"))
    metadata_end = cursor.position
    table: list[tuple[str, tuple[int, ...], int, int]] = []
    for _ in range(n_tensors):
        name = cursor.string()
        dimensions = cursor.scalar("<I")
        if dimensions > _MAX_DIMENSIONS:
            raise cursor.damaged(f"tensor {name!r} has {dimensions} dimensions")
        shape = tuple(cursor.scalar("<Q") for _ in range(dimensions))
        table.append((name, shape, cursor.scalar("<I"), cursor.scalar("<Q")))
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or alignment <= 0:
        raise cursor.damaged(f"alignment {alignment}")
    start = -(-cursor.position // alignment) * alignment
    tensors: dict[str, TensorInfo] = {}
    for name, shape, kind, offset in table:
        try:
            block, size = GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
        except (ValueError, KeyError):
            raise cursor.damaged(f"tensor {name!r} has the unknown type {kind}") from None
        elements = 1
        for extent in shape:
            elements *= extent
        n_bytes = elements // block * size
        if start + offset + n_bytes > cursor.size:
            raise cursor.damaged(f"tensor {name!r} ends after the file does: it was cut short")
        if name in tensors:
            raise cursor.damaged(f"tensor {name!r} stands there twice")
        tensors[name] = TensorInfo(name, shape, kind, start + offset, n_bytes)
    layout = Layout(version, n_metadata, metadata_end, cursor.position, alignment, start, cursor.size)
    return GgufHeader(path, metadata, tensors, layout)
