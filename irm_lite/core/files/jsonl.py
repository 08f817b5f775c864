"""JSON Lines files that grow one row at a time; each row is written completely or not at all."""

import json
import os
from pathlib import Path
from typing import Any, BinaryIO

from irm_lite.core.errors import DataError
from irm_lite.core.files.reading import open_ordinary, require_size

Row = dict[str, Any]

_MOST = 256 << 20  # bytes
_PIECE = 1 << 16  # bytes that are looked at first for the last line break


def append_row(path: Path, row: Row) -> None:
    """Add one row, fsynced: once this returns, it survives a crash and a power cut.

    A last line that a crash has torn is cut off first; the caller has looked at it (torn_line).
    """
    cut_torn_line(path)
    with path.open("ab") as file:
        file.write(as_line(row))
        file.flush()
        os.fsync(file.fileno())


def as_line(row: Row) -> bytes:
    """A row as it stands in a file."""
    return json.dumps(row, ensure_ascii=False).encode() + b"\n"


def read_rows(path: Path) -> list[Row]:
    """The rows of a file, none where there is no file. A last line that a crash has torn is skipped and left in the file.

    Raises DataError naming the line where a whole line is no JSON object, or where the file cannot be read.
    """
    whole = _read(path)
    return [_parse(line, f"{path}, line {number}") for number, line in enumerate(whole.splitlines(), 1)]


def torn_line(path: Path) -> bytes:
    """What follows the last line break; empty where there is no file. Raises DataError where it cannot be read."""
    try:
        with open_ordinary(path) as file:
            return _torn(file)
    except OSError as error:
        return _none(path, error)


def cut_torn_line(path: Path) -> None:
    """Cut off what follows the last line break; the caller has looked at it (torn_line)."""
    torn = torn_line(path)
    if torn:
        os.truncate(path, path.stat().st_size - len(torn))


def _read(path: Path) -> bytes:
    """The complete lines."""
    try:
        with open_ordinary(path) as file:
            require_size(file, path, _MOST)
            data = file.read(_MOST)
    except OSError as error:
        return _none(path, error)
    return data[: data.rfind(b"\n") + 1]


def _none(path: Path, error: OSError) -> bytes:
    """Empty where there is no file. Raises DataError otherwise, also for a dangling link, which somebody made."""
    if isinstance(error, FileNotFoundError) and not path.is_symlink():
        return b""
    raise DataError(f"{path} cannot be read ({error.strerror or error})", "choose another file") from None


def _torn(file: BinaryIO) -> bytes:
    end, size = file.seek(0, os.SEEK_END), _PIECE
    while True:
        file.seek(max(end - size, 0))
        tail = file.read(size)
        if b"\n" in tail or size >= end:
            return tail[tail.rfind(b"\n") + 1 :]
        size *= 4


def _parse(line: bytes, where: str) -> Row:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, dict):
        raise DataError(f"{where}: not a row of this file", "fix or remove it")
    return row
