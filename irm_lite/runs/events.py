"""A run's events: events.jsonl, one JSON object a line, which only ever grows. Imports no torch."""

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from irm_lite.core.errors import RunError
from irm_lite.core.files.reading import open_ordinary
from irm_lite.core.timestamp import now

LONGEST_LINE = 1 << 20  # bytes of an event

Event = dict[str, Any]


class Events:
    """The events in the file `path`. Making one reads nothing."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> Iterator[Event]:
        """All events so far. Lines that hold none (torn by a crash) are skipped. Raises RunError where the file cannot be read."""
        try:
            file = open_ordinary(self.path)
        except FileNotFoundError:
            return
        except OSError as error:
            raise RunError(f"{self.path} cannot be read ({error.strerror or error})", "the run is damaged") from None
        with file:
            for line in iter(lambda: file.readline(LONGEST_LINE), b""):  # a longer line comes in pieces, none of them valid JSON
                try:
                    event = json.loads(line.decode("utf-8", "replace"))
                except (ValueError, RecursionError):
                    continue
                if isinstance(event, dict) and isinstance(event.get("kind"), str):
                    yield event

    def finished(self) -> Event | None:
        """The event that ended the training; None where it was interrupted, failed or is still running."""
        last: Event = {}
        for event in self.read():
            last = event
        return last if last.get("kind") == "end" and "best_nll" in last else None

    def append(self, kind: str, **values: Any) -> Event:
        """Append one event, as one line in one write; NaN and infinity become null, since JSON has neither."""
        finite = {key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in values.items()}
        event: Event = {"time": now(), "kind": kind, **finite}
        line = json.dumps(event, allow_nan=False) + "\n"
        with self.path.open("a+b") as file:
            if file.tell() > 0:  # after a line torn by a crash, start a new one
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    line = "\n" + line
            file.write(line.encode())
        return event

    def sync(self) -> None:
        """Flush the events to the disk, so that a power cut cannot lose them."""
        with self.path.open("ab") as file:
            os.fsync(file.fileno())
