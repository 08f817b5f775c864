"""How much a Parquet file's pages unpack to, by their own headers: Arrow takes that memory before it has unpacked one.

Page headers are structs of Thrift's compact protocol (parquet-format's README and parquet.thrift: PageHeader).
"""

from pathlib import Path
from typing import Any

from irm_lite.reading import open_ordinary

_MOST_HEADER = 1 << 16  # bytes of a page's header; its statistics hold two values at most
_BYTE, _DOUBLE, _BINARY, _LIST, _SET, _STRUCT = 3, 7, 8, 9, 10, 12
_DEEPEST = 8


def require_told_sizes(path: Path, metadata: Any) -> None:
    """Raise ValueError where a column's pages unpack to more than `metadata`, pyarrow's, says of it."""
    with open_ordinary(path) as file:
        for group in map(metadata.row_group, range(metadata.num_row_groups)):
            for column in map(group.column, range(group.num_columns)):
                starts = [column.data_page_offset, column.dictionary_page_offset if column.has_dictionary_page else None]
                at = min(start for start in starts if start is not None)
                end, unpacked = at + column.total_compressed_size, 0
                while at < end:
                    file.seek(max(at, 0))
                    length, size, compressed = _page(file.read(_MOST_HEADER))
                    unpacked += length + size
                    if unpacked > column.total_uncompressed_size:
                        raise ValueError("its pages unpack to more than it says")
                    at += length + compressed


def _page(data: bytes) -> tuple[int, int, int]:
    """Of the header at the start: its length, and the page's size unpacked and packed."""
    try:
        fields, length = _struct(data, 0, 0)
        return length, fields[2], fields[3]
    except (IndexError, KeyError):
        raise ValueError("a page without a header") from None


def _struct(data: bytes, at: int, depth: int) -> tuple[dict[int, int], int]:
    """Its whole numbers by field, and where it ends."""
    if depth > _DEEPEST:
        raise ValueError("a page's header is nested too deeply")
    numbers: dict[int, int] = {}
    field = 0
    while (head := data[at]) != 0:
        at += 1
        if head >> 4:
            field += head >> 4
        else:
            field, at = _zigzag(data, at)
        if head & 15 in (4, 5, 6):
            numbers[field], at = _zigzag(data, at)
            if numbers[field] < 0:
                raise ValueError("a page of a negative size")
        else:
            at = _skip(data, at, head & 15, depth)
    return numbers, at + 1


def _skip(data: bytes, at: int, kind: int, depth: int, in_list: bool = False) -> int:
    if kind in (1, 2):
        return at + in_list  # a field's truth value stands in its head
    if kind in (4, 5, 6):
        return _varint(data, at)[1]
    if kind == _BYTE:
        return at + 1
    if kind == _DOUBLE:
        return at + 8
    if kind == _BINARY:
        length, at = _varint(data, at)
        return at + length
    if kind in (_LIST, _SET):
        count, item, at = data[at] >> 4, data[at] & 15, at + 1
        if count == 15:
            count, at = _varint(data, at)
        if count > len(data):
            raise ValueError("a page's header is longer than itself")
        for _ in range(count):
            at = _skip(data, at, item, depth, in_list=True)
        return at
    if kind == _STRUCT:
        return _struct(data, at, depth + 1)[1]
    raise ValueError(f"a page's header holds a field of type {kind}")


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
