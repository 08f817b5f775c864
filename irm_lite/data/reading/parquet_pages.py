"""How much memory a Parquet file takes, by its own footer and page headers, read here: Arrow allocates it without a limit.

pyarrow's objects for row groups and columns are not used: on a damaged footer they end the process (std::terminate).
The footer and the headers are structs of Thrift's compact protocol (parquet-format's README and parquet.thrift).
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from irm_lite.core.files.reading import open_ordinary

_MOST_FOOTER = 4 << 20
_USUAL_HEADER, _MOST_HEADER = 1 << 9, 1 << 16  # bytes of a page's header; its statistics hold two values at most
_TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _STRUCT = *range(1, 11), 12
_DEEPEST = 16
_DICTIONARY, _DATA_PAGES = 7, (5, 8)  # the fields of a page's header that give its number of values

Struct = dict[int, tuple[int, Any]]  # by a field's number: its type, and its value


class Chunk(NamedTuple):
    """A column's part of a row group: where its pages stand, what they take unpacked in bytes, its values, and the group's rows."""

    start: int
    end: int
    unpacked: int
    n_values: int
    n_rows: int


@dataclass(frozen=True)
class Footer:
    """Rows, columns of the widest row group, and each column's part of each row group."""

    n_rows: int
    n_columns: int
    chunks: list[Chunk]


def read_footer(path: Path) -> Footer:
    """The footer of a file. Raises OSError, or ValueError where it is damaged, or points to another file."""
    with open_ordinary(path) as file:
        size = os.fstat(file.fileno()).st_size
        file.seek(max(size - 8, 0))
        length, mark = int.from_bytes(file.read(4), "little"), file.read(4)
        if size < 12 or mark != b"PAR1":
            raise ValueError("no PAR1 at its end")
        if length > min(size - 12, _MOST_FOOTER):
            raise ValueError(f"a footer of {length} bytes")
        file.seek(size - 8 - length)
        about = _whole(file.read(length))
    groups = [(_field(group, 1, _LIST), _field(group, 3, _I64)) for group in _field(about, 4, _LIST)]
    chunks = [_chunk(column, n_rows) for columns, n_rows in groups for column in columns]
    if any(chunk.end > size for chunk in chunks):
        raise ValueError("a column lies outside the file")
    return Footer(_field(about, 3, _I64), max((len(columns) for columns, _ in groups), default=0), chunks)


def require_declared_sizes(path: Path, footer: Footer) -> None:
    """Raise ValueError where a column's pages hold more, in bytes or in values, than the footer says of it."""
    with open_ordinary(path) as file:
        for chunk in footer.chunks:
            at, unpacked, n_values = chunk.start, 0, 0
            while at < chunk.end:
                length, header = _page(file, at)
                size = _field(header, 2, _I32)
                unpacked += length + size
                n_values += sum(_field(_field(header, number, _STRUCT), 1, _I32) for number in _DATA_PAGES if number in header)
                if unpacked > chunk.unpacked or n_values > chunk.n_values:
                    raise ValueError("its pages unpack to more than it says")
                if _DICTIONARY in header and _field(_field(header, _DICTIONARY, _STRUCT), 1, _I32) > size:
                    raise ValueError("a dictionary of more values than bytes")
                at += length + _field(header, 3, _I32)


def _chunk(column: Struct, n_rows: int) -> Chunk:
    if 1 in column:
        raise ValueError("a column lies in another file")
    about = _field(column, 3, _STRUCT)
    n_values, unpacked, packed, data = (_field(about, number, _I64) for number in (5, 6, 7, 9))
    at = min(data, _field(about, 11, _I64, 0) or data)  # a dictionary's page stands before the others; 0 is none
    return Chunk(at, at + packed, unpacked, n_values, n_rows)


def _page(file: BinaryIO, at: int) -> tuple[int, Struct]:
    """The length of the header there, and its fields."""
    for most in (_USUAL_HEADER, _MOST_HEADER):
        file.seek(at)
        try:
            header, length = _struct(file.read(most), 0, 0)
        except IndexError:
            continue
        return length, header
    raise ValueError("a page without a header")


def _whole(data: bytes) -> Struct:
    try:
        return _struct(data, 0, 0)[0]
    except IndexError:
        raise ValueError("a footer that is cut short") from None


def _field(struct: Struct, number: int, kind: int, default: Any = None) -> Any:
    """A field's value, else the default. Raises ValueError where it is negative, or of another type or missing without default."""
    found, value = struct.get(number, (None, None))
    if found != kind:
        value = default
    if value is None or (isinstance(value, int) and value < 0):
        raise ValueError(f"field {number} is missing or negative")
    return value


def _struct(data: bytes, at: int, depth: int) -> tuple[Struct, int]:
    """A struct's fields, and where it ends."""
    fields: Struct = {}
    number = 0
    while (head := data[at]) != 0:
        at += 1
        if head >> 4:
            number += head >> 4
        else:
            number, at = _zigzag(data, at)
        if number in fields:
            raise ValueError(f"field {number} twice")
        kind = head & 15
        if kind in (_TRUE, _FALSE):  # it stands in its head
            fields[number] = kind, kind == _TRUE
        else:
            value, at = _value(data, at, kind, depth + 1)
            fields[number] = kind, value
    return fields, at + 1


def _value(data: bytes, at: int, kind: int, depth: int) -> tuple[Any, int]:
    """A value (None for types that are not needed), and where it ends."""
    if depth > _DEEPEST:
        raise ValueError("nested too deeply")
    if kind in (_TRUE, _FALSE, _BYTE):
        return None, at + 1
    if kind in (_I16, _I32, _I64):
        return _zigzag(data, at)
    if kind == _DOUBLE:
        return None, at + 8
    if kind == _BINARY:
        length, at = _varint(data, at)
        return None, at + length
    if kind in (_LIST, _SET):
        count, item, at = data[at] >> 4, data[at] & 15, at + 1
        if count == 15:
            count, at = _varint(data, at)
        if count > len(data) - at:
            raise IndexError("a list longer than what holds it")
        items = []
        for _ in range(count):
            value, at = _value(data, at, item, depth + 1)
            items.append(value)
        return (items if item == _STRUCT else None), at
    if kind == _STRUCT:
        return _struct(data, at, depth)
    raise ValueError(f"a field of type {kind}")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (data[at] & 127) << shift
        at, shift = at + 1, shift + 7
        if data[at - 1] < 128:
            return value, at
        if shift > 63:
            raise ValueError("a number of more than 64 bits")


def _zigzag(data: bytes, at: int) -> tuple[int, int]:
    value, at = _varint(data, at)
    return value >> 1 ^ -(value & 1), at
