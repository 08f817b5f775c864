"""A job at work in one of the pool's contexts: what its column writes, told to whoever asked."""

import time
from typing import Any

from irm_lite.serve.column import Column, Token
from irm_lite.serve.http.errors import ApiError
from irm_lite.serve.http.job import Began, Ended, Event, Job, Piece
from irm_lite.serve.http.pictures import picture
from irm_lite.serve.http.stops import StopFinder

_PICTURED = 16  # tokens from one picture of a streamed answer to the next


class Writing:
    """One step at a time, until `over`."""

    def __init__(self, job: Job, column: Column) -> None:
        self.job = job
        self.over = False
        self._column = column
        self._finder = StopFinder(job.stops)
        self._began = False
        self._read = 0  # characters of the column's text
        self._texts: list[str] = []  # since the last piece
        self._tokens: list[dict[str, Any]] = []
        steering = job.steering
        column.take(steering.vector, steering.adapters)
        column.write(job.prompt, job.manner, steering.strength, steering.layers)

    def step(self) -> None:
        """The next token, or a part of the prompt. Raises IrmLiteError."""
        if self.job.gone or time.monotonic() >= self.job.deadline:
            self._column.stop()
            if self._began:
                self._end("length")
            else:
                self.fail(ApiError(503, "timeout", "the time was over before the first token: ask for less, or later"))
            return
        if self.job.turned is not None:
            steering, self.job.turned = self.job.turned, None
            self._column.take(steering.vector, steering.adapters)
            self._column.steer(steering.strength, steering.layers)
        found = self._column.advance()
        if found is None:
            return
        if not self._began:
            self._began = True
            self._tell(Began(self._column.reused))
        if isinstance(found, Token):
            self._take(found)
        else:
            self._end("stop" if found.reason == "turn" else "length")

    def fail(self, error: ApiError) -> None:
        """It cannot go on."""
        self.over = True
        self._tell(error)

    def _take(self, token: Token) -> None:
        self._read += len(token.text)
        self.job.written = len(self._column.written)
        text, stopped = self._finder.feed(token.text)
        self._texts.append(text)
        if self.job.manner.watched:
            self._tokens.append({"text": token.text, "norm": token.norm})
        if stopped:
            self._column.stop()
            self._tell_end("stop")
        elif self.job.streamed:
            self._flush(self._picture() if token.number % _PICTURED == _PICTURED - 1 else None)

    def _end(self, reason: str) -> None:
        """With what was held back: half a character, the beginning of a stop."""
        text, stopped = self._finder.feed(self._column.text[self._read :])
        self._texts += [text, self._finder.rest()]
        self._tell_end("stop" if stopped else reason)

    def _tell_end(self, reason: str) -> None:
        self._flush()
        self.over = True
        self._tell(Ended(reason, len(self._column.written), self._picture()))

    def _picture(self) -> dict[str, Any] | None:
        """Of what was added so far."""
        return picture(self._column.mean_added()) if self.job.pictured else None

    def _flush(self, outputs: dict[str, Any] | None = None) -> None:
        text = "".join(self._texts)
        if text or self._tokens or outputs:
            self._tell(Piece(text, tuple(self._tokens), outputs))
        self._texts, self._tokens = [], []

    def _tell(self, event: Event) -> None:
        if not self.job.gone:
            self.job.hear(event)
