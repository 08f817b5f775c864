"""What a run's events say so far; each reading continues where the last one stopped."""

import json
import os
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from irm_lite.runs.events import LONGEST_LINE
from irm_lite_tui.watch.curve import Curve

_WHOLE = 4 << 20  # bytes that are read in full at a time; of more, the beginning, samples and the end
_EDGE = 256 << 10
_SAMPLES, _SAMPLE_BYTES = 400, 4096
_LONGEST_TEXT = 2000  # characters of a sample or a warning
_BEYOND = 1e15  # any number of a training; what is below can be summed and subtracted


@dataclass(frozen=True)
class Sample:
    """What the steered model wrote at a validation."""

    step: int
    prompt: str
    text: str


@dataclass(frozen=True)
class End:
    """How a training ended; `best_nll` is there only where it came to its end."""

    reason: str
    best_nll: float | None


class RunLog:
    """The state of a run by its events.jsonl. Reading never raises; bad lines are counted."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._forget()

    def _forget(self) -> None:
        self._offset, self._rest, self._inode = 0, b"", 0
        self._skipping = False  # within a line that is too long
        self.step, self.max_steps = 0, 0
        self.loss, self.validation, self.learning_rate = Curve(), Curve(), Curve()
        self.tokens_per_second: float | None = None
        self.eta_seconds: float | None = None
        self.memory_bytes: float | None = None
        self.base_nll: float | None = None
        self._best: tuple[float, float] | None = None  # the lowest figure of a validation, and its NLL
        self.sound: tuple[int, int] | None = None  # answers of the newest validation that say something, of how many
        self.about = ""  # device and number format
        self.samples: deque[Sample] = deque(maxlen=64)
        self.warnings: deque[str] = deque(maxlen=20)
        self._of_text = ""  # the one about the newest validation's answers
        self.disagreement = ""  # of transformers and llama.cpp on the base
        self.end: End | None = None
        self.bad_lines = 0
        self.sampled = False  # the file was too long to be read whole

    def read(self) -> bool:
        """Read what was written since; True where there was anything. A file that shrank or was replaced is read from the start."""
        try:
            if not self.path.is_file():  # opening a pipe would wait for its other end
                return False
            with self.path.open("rb") as file:
                facts = os.fstat(file.fileno())
                anew = facts.st_ino != self._inode or facts.st_size < self._offset
                if anew:
                    self._forget()
                    self._inode = facts.st_ino
                if facts.st_size == self._offset:
                    return anew
                if facts.st_size - self._offset > _WHOLE:
                    self._read_samples(file, facts.st_size)
                file.seek(self._offset)
                self._take(file.read(facts.st_size - self._offset))
                self._offset = file.tell()
                return True
        except OSError:
            return False

    def _read_samples(self, file: BinaryIO, size: int) -> None:
        """The beginning, and a few lines at even distances; moves on to near the end."""
        file.seek(self._offset)
        self._take(file.read(_EDGE))
        first, last = file.tell(), size - _WHOLE // 4
        for number in range(_SAMPLES):
            file.seek(first + (last - first) * number // _SAMPLES)
            self._between(file.read(_SAMPLE_BYTES))
        file.seek(last)
        file.readline(LONGEST_LINE)
        self._rest, self._offset, self.sampled = b"", file.tell(), True

    def _between(self, chunk: bytes) -> None:
        """Take the complete lines of a piece from the middle of the file."""
        for line in chunk.split(b"\n")[1:-1]:
            self._take_line(line)

    def _take(self, chunk: bytes) -> None:
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        if self._skipping and lines:
            lines, self._skipping = lines[1:], False
        for line in lines:
            self._take_line(line)
        if self._skipping or len(self._rest) > LONGEST_LINE:
            self.bad_lines += not self._skipping
            self._rest, self._skipping = b"", True

    def _take_line(self, line: bytes) -> None:
        if not line.strip():
            return
        try:
            event = json.loads(line)
        except (ValueError, RecursionError):
            event = None
        if isinstance(event, dict):
            self._take_event(event)
        else:
            self.bad_lines += 1

    def _take_event(self, event: dict[str, Any]) -> None:
        kind, step = event.get("kind"), int(number(event.get("step")) or 0)
        if kind == "start":
            self.end, self.eta_seconds = None, None
            self.max_steps, self.disagreement = int(number(event.get("max_steps")) or 0), ""
            self.about = ", ".join(str(event[key])[:40] for key in ("device", "dtype") if key in event)
        elif kind == "step":
            self.step, self.max_steps = step, int(number(event.get("max_steps")) or self.max_steps)
            for curve, key in ((self.loss, "loss"), (self.learning_rate, "learning_rate")):
                value = number(event.get(key))
                if value is not None:
                    curve.add(step, value)
            self.tokens_per_second = number(event.get("tokens_per_second"))
            self.eta_seconds, self.memory_bytes = number(event.get("eta_seconds")), number(event.get("memory_bytes"))
        elif kind == "eval":
            nll = number(event.get("nll"))
            if nll is not None and event.get("of") == "base":
                self.base_nll = nll
            if nll is not None:
                self.validation.add(step, nll)
            if nll is not None and step > 0:
                figure = number(event.get("figure"))  # older runs have none
                this = (nll if figure is None else figure, nll)
                self._best = this if self._best is None else min(self._best, this)
        elif kind == "sample":
            prompt, text = (str(event.get(key, ""))[:_LONGEST_TEXT] for key in ("prompt", "text"))
            while self.samples and self.samples[-1].step >= step:  # a resumed run passes these steps again
                self.samples.pop()
            self.samples.append(Sample(step, prompt, text))
        elif kind == "text":
            if self._of_text in self.warnings:  # of the validation before
                self.warnings.remove(self._of_text)
            counts = number(event.get("sound")), number(event.get("answers"))
            self.sound = (int(counts[0]), int(counts[1])) if counts[0] is not None and counts[1] is not None else None
        elif kind == "warning":
            self.warnings.append(str(event.get("text", ""))[:_LONGEST_TEXT])
            if event.get("of") == "runtimes":
                self.disagreement = self.warnings[-1]
            elif event.get("of") == "text":
                self._of_text = self.warnings[-1]
        elif kind == "end":
            reason = str(event.get("reason", "ended"))[:200]
            self.end = End(reason, number(event.get("best_nll")))

    @property
    def best_nll(self) -> float | None:
        """The validation NLL of the IRM at its best step so far, nats a token."""
        if self.end is not None and self.end.best_nll is not None:
            return self.end.best_nll
        return self._best[1] if self._best is not None else None


def number(value: object) -> float | None:
    """The value as a number, or None where it is none, or beyond what a training can have."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return float(value) if abs(value) < _BEYOND else None  # not so of NaN
