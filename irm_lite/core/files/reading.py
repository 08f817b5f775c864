"""Reads files that others wrote: ordinary files only, after a check of their size.

All functions raise OSError, with the reason in `strerror`, or ValueError.
"""

import errno
import json
import os
import stat
import tomllib
from pathlib import Path
from typing import Any, BinaryIO

_TOML_BYTES = 256 << 10
_TOML_DOTS = 40  # in a line: tomllib's time grows with the square of a key's parts


def open_ordinary(path: Path | str) -> BinaryIO:
    """Open for reading. A folder, a pipe or a device is refused without waiting for it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except ValueError:  # a null character or a lone surrogate
        raise OSError(errno.EINVAL, "no file can be called that", str(path)) from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is not an ordinary file", str(path))
    return os.fdopen(descriptor, "rb")


def read_text(path: Path | str, most: int = 1 << 20) -> str:
    """The UTF-8 text of a file of at most `most` bytes, without the mark that Windows' editors put before it."""
    with open_ordinary(path) as file:
        require_size(file, path, most)
        data = file.read(most)
    return data.decode("utf-8-sig")


def read_json(path: Path | str, most: int = 4 << 20) -> Any:
    """The JSON document in a file."""
    try:
        return json.loads(read_text(path, most))
    except RecursionError:
        raise ValueError("nested too deeply") from None


def read_toml(path: Path | str) -> dict[str, Any]:
    """The TOML document in a file."""
    text = read_text(path, _TOML_BYTES)
    if any(line.count(".") > _TOML_DOTS for line in text.splitlines()):
        raise ValueError(f"a line of more than {_TOML_DOTS} dots")
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def require_ordinary(path: Path | str, most: int) -> None:
    """For files that a library opens by path: raise OSError where it is not an ordinary file of at most `most` bytes."""
    with open_ordinary(path) as file:
        require_size(file, path, most)


def require_size(file: BinaryIO, path: Path | str, most: int) -> None:
    """Raise OSError where an open file has more bytes."""
    size = os.fstat(file.fileno()).st_size
    if size > most:
        raise OSError(errno.EFBIG, f"its {size} bytes are more than the {most} allowed", str(path))
