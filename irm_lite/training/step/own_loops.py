"""What the model itself writes in circles, made less likely (sequence-level unlikelihood: Welleck 2019, arXiv 1908.04319).

An NLL never sees such texts, since it is taken of answers that people wrote: a training by it alone ends with a model that starts
well and goes round in circles. So its own greedy answers are asked for now and then, and where they come back to the same words,
those lose likelihood: a few of the newest loops in each step; in one of ten it did little (docs/log.md). Most questions are
general ones: to those of the training it soon has an answer by heart.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from irm_lite.base.load import Base
from irm_lite.base.speaker import BaseSpeaker
from irm_lite.core.errors import DataError
from irm_lite.data.encoding import Sample, encode
from irm_lite.data.example import Example
from irm_lite.data.general_questions import general_questions
from irm_lite.scoring.speaker import Decoding

LOOPS = "loops"  # the newest, among the callbacks' states in a checkpoint's trainer_state.json
EVERY = 10  # steps from one asking to the next, more in a training of over 150; asking costs about as much as four of them
_ASKINGS = 15  # at most, or about: the answers change slowly in a long training
FROM = 0.3  # of the training: what is written before says little of what will be
_OWN, _GENERAL, _NEW_TOKENS = 8, 24, 48  # questions side by side
_KEPT, _A_STEP = 24, 3  # loops of the newest askings, and how many of them go through in a step
_NGRAM, _FEWEST = 3, 3  # a text comes back to what it said where three of its tokens end three tokens that stood there before


@dataclass(frozen=True)
class Loop:
    """An answer that the model wrote, as a sample, and the places within it, 0-based, whose tokens come round again."""

    sample: Sample
    places: list[int]


class OwnLoops:
    """Asks an injected base for its own answers, and keeps the newest that loop. All processes ask the same."""

    def __init__(self, base: Base, samples: Sequence[Sample], max_steps: int, seed: int) -> None:
        self._base, self._speaker, self._seed = base, BaseSpeaker(base), seed
        self._asked = [sample for sample in samples if sample.example.messages]
        self._first, self._every = max(round(FROM * max_steps), EVERY), max(EVERY, max_steps // _ASKINGS)
        self.newest: list[Loop] | None = None  # None: never asked

    def due(self, step: int) -> bool:
        """Whether it is time to ask, at this 0-based step."""
        return bool(self._asked) and step >= self._first and (step - self._first) % self._every == 0

    def ask(self, step: int) -> None:
        """Look for loops among the answers to questions drawn for this step."""
        chance = random.Random(f"{self._seed} {step}")
        drawn = chance.sample(self._asked, min(_OWN, len(self._asked)))
        drawn += [each for question in chance.sample(general_questions(), _GENERAL) if (each := self._general(question, drawn[0]))]
        answers = self._speaker.answers(drawn, Decoding("greedy", new_tokens=_NEW_TOKENS))
        loops = [
            _loop([*asked.ids[: asked.answer_start], *answer.ids], asked.answer_start, places)
            for asked, answer in zip(drawn, answers, strict=True)
            if len(places := repeated(answer.ids)) >= _FEWEST
        ]
        self.newest = [*loops, *(self.newest or [])][:_KEPT]

    def _general(self, question: str, own: Sample) -> Sample | None:
        """A general question behind the system text of a training sample; None where the template hides an answer to it."""
        system = [each for each in own.example.messages if each["role"] == "system"]
        asked = (*system, {"role": "user", "content": question}, {"role": "assistant", "content": "."})
        try:
            return encode(self._base.tokenizer, Example(asked, None, f"the general question {question!r}"))
        except DataError:
            return None

    def of_step(self, step: int) -> list[Loop]:
        """Those whose turn it is."""
        loops = self.newest or []
        return [loops[(_A_STEP * step + at) % len(loops)] for at in range(min(_A_STEP, len(loops)))]

    def state(self) -> list[list[Any]] | None:
        """For a checkpoint's JSON."""
        return None if self.newest is None else [[each.sample.ids, each.sample.answer_start, each.places] for each in self.newest]


def read_loops(state: Any) -> list[Loop] | None:
    """What `OwnLoops.state` gave. Raises ValueError or TypeError where it is none."""
    if state is None:
        return None
    loops = [_loop(list(ids), start, list(places)) for ids, start, places in state]
    for loop in loops:
        ids, places = loop.sample.ids, loop.places
        if not all(type(each) is int and each >= 0 for each in (*ids, *places, loop.sample.answer_start)):
            raise ValueError("a loop holds something else than token ids")
        if not places or not 0 < loop.sample.answer_start <= len(ids) - 1 - max(places):
            raise ValueError("a loop is shorter than its places")
    return loops


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


def _loop(ids: list[int], answer_start: int, places: list[int]) -> Loop:
    return Loop(Sample(ids, answer_start, Example((), None, "")), places)
