"""Files of JSON rows that grow by one row at a time, each there whole or not at all."""

import json
import os
from pathlib import Path
from typing import Any

from irm_lite.errors import DataError
from irm_lite.reading import open_ordinary, require_size

Row = dict[str, Any]

_MOST = 256 << 20  # bytes


def append_row(path: Path, row: Row) -> None:
    """Add one row, fsynced: once this returns, neither a crash nor a power cut takes it away."""
    with path.open("ab") as file:
        file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def read_rows(path: Path) -> list[Row]:
    """The rows of a file, none where there is no file. A last line that a crash has torn is cut off.

    Raises DataError naming the line where a whole line is no JSON object, or where the file cannot be read.
    """
    if not path.exists():
        return []
    try:
        with open_ordinary(path) as file:
            require_size(file, path, _MOST)
            data = file.read(_MOST)
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            os.truncate(path, whole)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or error})", "choose another file") from None
    return [_parse(line, f"{path}, line {number}") for number, line in enumerate(data[:whole].splitlines(), 1)]


def _parse(line: bytes, where: str) -> Row:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, dict):
        raise DataError(f"{where}: not a row of this file", "mend or remove it")
    return row
