"""What can be scored: whatever answers questions and gives NLLs, however it is steered."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from irm_lite.core.types import DoubleArray
from irm_lite.data.encoding import Sample

NEW_TOKENS = 64  # the shipped answers have at most 40 tokens in the demo's vocabulary: a model that has learned them ends before


@dataclass(frozen=True)
class Decoding:
    """How answers are written: greedy at temperature 0, else drawn (top-k 40, top-p 0.95, min-p 0.05) from a seed.
    `measured`: their own NLL is wanted if it can be had by the way."""

    name: str
    temperature: float = 0.0
    seed: int = 0
    new_tokens: int = NEW_TOKENS
    measured: bool = False


@dataclass(frozen=True)
class Answer:
    """What was written: the text, its tokens without the one that ends the turn, and whether that came by itself. `nll`: of those
    tokens by whoever wrote them, in nats; None where it is not known."""

    text: str
    ids: tuple[int, ...]
    ended: bool
    nll: float | None = None


class Speaker(Protocol):
    """A model under one steering.

    >>> class Parrot:
    ...     def answers(self, questions, decoding):
    ...         return [Answer("Polly!", (7, 8), True) for _ in questions]
    ...
    ...     def nll(self, samples):
    ...         return np.array([[each.n_answer, 2.0 * each.n_answer] for each in samples])
    """

    def answers(self, questions: Sequence[Sample], decoding: Decoding) -> list[Answer]:
        """What it writes after each sample's prompt, `ids[:answer_start]`; the sample's own answer is not looked at."""
        ...

    def nll(self, samples: Sequence[Sample]) -> DoubleArray:
        """(N, 2): each answer's tokens, and the sum of their NLL in nats."""
        ...
