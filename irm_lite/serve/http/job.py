"""One answer that is asked for, and what is heard of it."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from irm_lite.serve.column import Manner
from irm_lite.serve.http.errors import ApiError
from irm_lite.serve.http.sources import Steering


@dataclass(frozen=True)
class Began:
    """Its turn has come: so many tokens of the prompt need not be read again."""

    reused: int


@dataclass(frozen=True)
class Piece:
    """Text that follows; `tokens`, where norms were asked for: {"text", "norm"} of each token since the last piece. `outputs`, now
    and then where they were: the picture of what was added so far."""

    text: str
    tokens: tuple[dict[str, Any], ...] = ()
    outputs: dict[str, Any] | None = None


@dataclass(frozen=True)
class Ended:
    """It is over. `reason` is OpenAI's: stop (turn over, or a stop text) or length (tokens, context or time used up)."""

    reason: str
    tokens: int
    outputs: dict[str, Any] | None = None


Event = Began | Piece | Ended | ApiError


def unheard(event: Event) -> None:
    """Nobody listens."""


@dataclass(eq=False)
class Job:
    """`hear` is called in the engine's thread with each event, the last an Ended or an ApiError. `streamed`: in pieces as they
    come, else in one at the end. `pictured`: with outputs. `group`: whose it is, for a fair turn. `gone`: nobody listens.
    `written`: tokens so far."""

    prompt: list[int]
    manner: Manner
    steering: Steering
    hear: Callable[[Event], None]
    stops: tuple[str, ...] = ()
    streamed: bool = True
    pictured: bool = False
    group: str = ""
    deadline: float = float("inf")  # on time.monotonic's clock
    asked: float = field(default_factory=time.monotonic)
    gone: bool = False
    written: int = 0
    turned: Steering | None = None
