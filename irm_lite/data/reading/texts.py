"""Text files as editors and spreadsheets write them: UTF-8, with a byte order mark or without, and UTF-16."""

import codecs
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from irm_lite.core.errors import DataError
from irm_lite.core.files.reading import open_ordinary
from irm_lite.data.reading.limits import MAX_ROWS, MAX_TEXT, too_many

_PIECE = 1 << 20  # bytes
_MARKS = {  # the longer ones first: UTF-32's begins as UTF-16's does
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def encoding_of(path: Path) -> str:
    """The encoding that a file's first bytes tell: by its byte order mark, or by the zeros between UTF-16's first letters."""
    with open_ordinary(path) as file:
        head = file.read(4)
    for mark, encoding in _MARKS.items():
        if head.startswith(mark):
            return encoding
    if len(head) == 4 and head[0] and head[2] and head[1] == head[3] == 0:
        return "utf-16-le"
    return "utf-16-be" if len(head) == 4 and head[1] and head[3] and head[0] == head[2] == 0 else "utf-8"


def spoken(encoding: str) -> str:
    """An encoding as people call it."""
    return "-".join(encoding.upper().split("-")[:2])


def head_of(path: Path, encoding: str, newline: str | None = None) -> str:
    """The first characters of a file, as many as a line may have and one more."""
    with path.open(encoding=encoding, newline=newline) as file:
        return file.read(MAX_TEXT + 2)


def lines(file: TextIO, path: Path) -> Iterator[str]:
    """The lines. Raises DataError at one that is too long to be held, and once there are too many."""
    for number, line in enumerate(iter(lambda: file.readline(MAX_TEXT + 2), ""), 1):
        if number > MAX_ROWS + 1:  # CSV has a header
            raise too_many(path)
        if len(line.rstrip("\r\n")) > MAX_TEXT:
            raise DataError(f"{path}, line {number}: more than {MAX_TEXT:,} characters", "shorten or remove it")
        yield line


def first_bad_byte(path: Path, encoding: str) -> str:
    """Where the text stops being of its encoding; a reader's own error counts from its buffer."""
    decoder, at = codecs.getincrementaldecoder(encoding)(), 0
    with open_ordinary(path) as file:
        for piece in iter(lambda: file.read(_PIECE), b""):
            waiting = len(decoder.getstate()[0])
            try:
                decoder.decode(piece)
            except UnicodeDecodeError as error:
                return f"byte {at - waiting + error.start}"
            at += len(piece)
    return "at its end"
