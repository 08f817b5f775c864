"""stderr whose other end may go away: the terminal is closed, the pipe's reader has seen enough, the log's disk is full."""

import os
from contextlib import suppress
from typing import Any, TextIO


class LastingStderr:
    """Writes to `stream` until that fails, then to nowhere: work must not end because nobody reads what it says."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError:
            self._give_up()
        except RuntimeError:  # a signal came within a write
            pass
        return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError:
            self._give_up()
        except RuntimeError:
            pass

    def _give_up(self) -> None:
        with suppress(OSError, ValueError):  # what waits in the stream goes to nowhere too, else Python's end would fail
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
