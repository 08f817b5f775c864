"""Terminals, pipes and arguments in another encoding than UTF-8."""

import os
import sys
from typing import Any, TextIO

_LARGEST = 10_000  # columns or lines


def open_what_is_closed() -> None:
    """Lead streams that whoever started the process has closed (`>&-`, services, pythonw) to nowhere: else the next files that are
    opened, ours, would take their numbers, and what libraries print would go into these."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number
    if sys.stdin is None:
        sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
    if sys.stdout is None:
        sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)


def replace_what_cannot_be_shown() -> None:
    """From now on a character that stdout or stderr cannot encode is written as "?": an answer must not end in its middle."""
    streams: tuple[Any, ...] = (sys.stdout, sys.stderr)
    for stream in streams:
        if getattr(stream, "errors", None) in ("strict", "surrogateescape") and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


def forget_size_of_nothing() -> None:
    """Drop COLUMNS and LINES of 0, which some pseudo-terminals leave: rich would show nothing at all. So with absurdly many."""
    for name in ("COLUMNS", "LINES"):
        size = os.environ.get(name, "")
        if size.isdecimal() and not 0 < int(size) <= _LARGEST:
            del os.environ[name]


def read_all(stream: TextIO) -> str:
    """What can be read from standard input: UTF-8, as files and other programs give it, else as the terminal's encoding has it.

    Raises UnicodeError where it is neither.
    """
    raw = getattr(stream, "buffer", None)
    if raw is None:  # a test's
        return stream.read()
    data: bytes = raw.read()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode(stream.encoding or "utf-8")


def argument_text(text: str) -> str:
    """A command line's text; read as UTF-8 where the system's encoding lacks its bytes. Raises UnicodeError where it is none."""
    if not any("\udc80" <= each <= "\udcff" for each in text):
        return text
    return os.fsencode(text).decode("utf-8")
