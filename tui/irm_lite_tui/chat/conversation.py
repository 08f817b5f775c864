"""A conversation in several columns: what was asked, what each answered, and how it was steered."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

Message = dict[str, str]


@dataclass(frozen=True)
class Steering:
    """The steering from this token on (counted from 0); `layers` as the server writes them, empty for adapters, which have none."""

    token: int
    strength: float
    layers: str


@dataclass
class Answer:
    """One column's answer as it grows. `tokens` are pieces of text, `norms` the L2 norm of what was added for each, if known.

    `steered` is the steering that the server reported, in order; empty for the base.
    """

    tokens: list[str] = field(default_factory=list)
    norms: list[float | None] = field(default_factory=list)
    steered: list[Steering] = field(default_factory=list)
    whole: str | None = None  # once it has ended
    reason: str = ""
    error: str = ""

    @property
    def text(self) -> str:
        return "".join(self.tokens) if self.whole is None else self.whole

    @property
    def over(self) -> bool:
        return self.whole is not None or bool(self.error)

    @property
    def mean_norm(self) -> float | None:
        """Mean over the tokens; None where nothing steered."""
        known = [norm for norm in self.norms if norm is not None]
        return float(np.mean(known)) if known else None


@dataclass
class Turn:
    """A prompt and its answers, with the settings at that time; `sources` are the loaded files."""

    prompt: str
    strength: float
    layers: str
    seed: int
    temperature: float
    sources: dict[str, str]
    answers: dict[str, Answer]

    @property
    def over(self) -> bool:
        return all(answer.over for answer in self.answers.values())


class Conversation:
    """The turns so far. The newest is the one that the server answers, under the number of its request."""

    def __init__(self) -> None:
        self.turns: list[Turn] = []
        self.request: int | None = None

    @property
    def writing(self) -> bool:
        """Whether an answer is still being written."""
        return bool(self.turns) and not self.turns[-1].over

    def begin(self, turn: Turn, request: int) -> None:
        """Add a turn that was sent to the server as this request."""
        self.turns.append(turn)
        self.request = request

    def open_answer(self, request: int | None, column: str) -> Answer | None:
        """A column's answer to this request while it is being written; None where the request is of an earlier conversation."""
        if request != self.request or not self.turns:
            return None
        answer = self.turns[-1].answers.get(column)
        return None if answer is None or answer.over else answer

    def take(self, event: dict[str, Any]) -> None:
        """Put in what a start, set, token or end event of the server (docs/serve.md) says of an answer."""
        if event["kind"] == "set":
            for column, about in event["columns"].items():
                self._steered(event.get("chat"), column, about["token"], about)
            return
        if event["kind"] == "start":
            self._steered(event.get("id"), event["column"], 0, event)
        answer = self.open_answer(event.get("id"), event["column"])
        if answer is not None and event["kind"] == "token":
            answer.tokens.append(event["text"])
            answer.norms.append(event["norm"])
        elif answer is not None and event["kind"] == "end":
            answer.whole, answer.reason = event["text"], event["reason"]

    def _steered(self, request: int | None, column: str, token: int, about: dict[str, Any]) -> None:
        """Keep what steers an answer from this token on; nothing steers the base."""
        answer = self.open_answer(request, column)
        if answer is not None and "strength" in about:
            answer.steered.append(Steering(token, about["strength"], about.get("layers", "")))

    def fail(self, why: str) -> None:
        """Nothing more comes: each answer that is still being written ends with this error."""
        for answer in self.turns[-1].answers.values() if self.turns else ():
            if not answer.over:
                answer.error = why


def history(turns: list[Turn], column: str, prompt: str) -> list[Message]:
    """What this column is asked: its own answers behind each earlier prompt; turns that it did not answer are left out."""
    messages: list[Message] = []
    for turn in turns:
        answer = turn.answers.get(column)
        if answer is not None and answer.text:
            messages += [{"role": "user", "content": turn.prompt}, {"role": "assistant", "content": answer.text}]
    return [*messages, {"role": "user", "content": prompt}]
