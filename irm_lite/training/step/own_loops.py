"""What the model itself writes in circles, made less likely (sequence-level unlikelihood: Welleck 2019, arXiv 1908.04319).

An NLL never sees such texts, since it is taken of answers that people wrote: a training by it alone ends with a model that starts
well and goes round in circles. So its own greedy answers to training questions are asked for now and then, and where they come
back to the same words, those lose likelihood.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from irm_lite.base.load import Base
from irm_lite.base.speaker import BaseSpeaker
from irm_lite.data.encoding import Sample
from irm_lite.scoring.speaker import Decoding

EVERY = 10  # steps; asking costs about as much as four of them
FROM = 0.3  # of the training: what is written before says little of what will be
_ASKED, _NEW_TOKENS = 16, 48  # questions side by side
_TEXTS = 6  # that loop, at most: they go through in one row
_NGRAM, _FEWEST = 3, 3  # a text comes back to what it said where three of its tokens end three tokens that stood there before


@dataclass(frozen=True)
class Loop:
    """An answer that the model wrote, as a sample, and the places within it, 0-based, whose tokens come round again."""

    sample: Sample
    places: list[int]


class OwnLoops:
    """Asks an injected base for its own answers to the training questions that have some."""

    def __init__(self, base: Base, samples: Sequence[Sample], max_steps: int, seed: int) -> None:
        self._speaker, self._seed = BaseSpeaker(base), seed
        self._asked = [sample for sample in samples if sample.example.messages]
        self._first = max(round(FROM * max_steps), EVERY)

    def due(self, step: int) -> bool:
        """Whether it is time, at this 0-based step. It depends on nothing else, so that a resumed training does the same."""
        return bool(self._asked) and step >= self._first and (step - self._first) % EVERY == 0

    def found(self, step: int, part: int = 0) -> list[Loop]:
        """The loops among answers to questions drawn for this step; `part`: of which process."""
        drawn = random.Random(f"{self._seed} {step} {part}").sample(self._asked, min(_ASKED, len(self._asked)))
        answers = self._speaker.answers(drawn, Decoding("greedy", new_tokens=_NEW_TOKENS))
        loops = [
            Loop(Sample([*asked.ids[: asked.answer_start], *answer.ids], asked.answer_start, asked.example), places)
            for asked, answer in zip(drawn, answers, strict=True)
            if len(places := repeated(answer.ids)) >= _FEWEST
        ]
        return loops[:_TEXTS]


def repeated(ids: Sequence[int]) -> list[int]:
    """The places of the tokens that end an n-gram that stood before.

    >>> repeated([5, 6, 7, 8, 5, 6, 7, 9])
    [6]
    """
    seen: set[tuple[int, ...]] = set()
    places = []
    for end in range(_NGRAM, len(ids) + 1):
        ngram = tuple(ids[end - _NGRAM : end])
        if ngram in seen:
            places.append(end - 1)
        seen.add(ngram)
    return places
