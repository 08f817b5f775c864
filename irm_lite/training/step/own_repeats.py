"""What the model itself says again, made less likely (sequence-level unlikelihood: Welleck 2019, arXiv 1908.04319).

An NLL never sees such texts, since it is taken of answers that people wrote: a training by it alone ends with a model that starts
well and goes round in circles, or says of everything "I feel so alone". So its own greedy answers are asked for now and then.
Where one comes back to its own words (a loop), or to those of many others (a stock phrase), these lose likelihood: a few of the
newest such answers in each step; in one of ten it did little (docs/log.md). Most questions are general ones: to those of the
training it soon has an answer by heart.
"""

import random
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from irm_lite.base.load import Base
from irm_lite.base.speaker import BaseSpeaker
from irm_lite.core.errors import DataError
from irm_lite.data.encoding import Sample, encode
from irm_lite.data.example import Example
from irm_lite.data.general_questions import general_questions
from irm_lite.scoring.phrases import too_many
from irm_lite.scoring.speaker import Decoding

LOOPS, PHRASES = "loops", "phrases"  # the newest of each, among the callbacks' states in a checkpoint's trainer_state.json
EVERY = 10  # steps from one asking to the next, more in a training of over 150; asking costs about as much as four of them
_ASKINGS = 15  # at most, or about: the answers change slowly in a long training
FROM = 0.3  # of the training: what is written before says little of what will be
_OWN, _GENERAL, _NEW_TOKENS = 8, 24, 48  # questions side by side
_KEPT, _A_STEP = 24, 3  # answers of the newest askings, and how many of them go through in a step, of each sort
_LOOP, _FEWEST = 3, 3  # a text comes back to what it said where three of its tokens end three tokens that stood there before
_PHRASE = 4  # tokens

Ngram = tuple[int, ...]
_NOBODYS = Example((), None, "")  # of a text that the data do not have


@dataclass(frozen=True)
class Repeat:
    """An answer that the model wrote, as a sample, and the places within it, 0-based, whose tokens are said again."""

    sample: Sample
    places: list[int]


class OwnRepeats:
    """Asks an injected base for its own answers, and keeps the newest that loop, and the newest with a stock phrase: mixed, the
    phrases crowded the loops out. `sorts`: those that are looked for. All processes ask the same."""

    def __init__(
        self, base: Base, samples: Sequence[Sample], max_steps: int, seed: int, sorts: Collection[str] = (LOOPS, PHRASES)
    ) -> None:
        self._sorts = sorts
        self._base, self._speaker, self._seed = base, BaseSpeaker(base), seed
        # each prompt once: the same answer to the same question is no stock phrase
        self._asked = list({tuple(each.ids[: each.answer_start]): each for each in samples if each.example.messages}.values())
        self._known = [sample.ids[sample.answer_start :] for sample in samples]
        self._first, self._every = max(round(FROM * max_steps), EVERY), max(EVERY, max_steps // _ASKINGS)
        self.newest: dict[str, list[Repeat]] | None = None  # loops and phrases; None: never asked

    def due(self, step: int) -> bool:
        """Whether it is time to ask, at this 0-based step."""
        return bool(self._asked) and step >= self._first and (step - self._first) % self._every == 0

    def ask(self, step: int) -> None:
        """Look for repeats among the answers to questions drawn for this step."""
        chance = random.Random(f"{self._seed} {step}")
        drawn = chance.sample(self._asked, min(_OWN, len(self._asked)))
        drawn += [each for question in chance.sample(general_questions(), _GENERAL) if (each := self._general(question, drawn[0]))]
        answers = [answer.ids for answer in self._speaker.answers(drawn, Decoding("greedy", new_tokens=_NEW_TOKENS))]
        before = self.newest or {}
        self.newest = {
            sort: [
                *(
                    _repeat(asked, ids, at)
                    for asked, ids, at in zip(drawn, answers, self._places(sort, answers), strict=True)
                    if at
                ),
                *before.get(sort, []),
            ][:_KEPT]
            for sort in self._sorts
        }

    def _places(self, sort: str, answers: Sequence[Sequence[int]]) -> list[list[int]]:
        """For each answer, those of the tokens that are said again in this sort of way."""
        if sort == PHRASES:
            return stock_places(answers, self._known)
        return [places if len(places := loop_places(ids)) >= _FEWEST else [] for ids in answers]

    def _general(self, question: str, own: Sample) -> Sample | None:
        """A general question behind the system text of a training sample; None where the template hides an answer to it."""
        system = [each for each in own.example.messages if each["role"] == "system"]
        asked = (*system, {"role": "user", "content": question}, {"role": "assistant", "content": "."})
        try:
            return encode(self._base.tokenizer, Example(asked, None, f"the general question {question!r}"))
        except DataError:
            return None

    def of_step(self, step: int) -> dict[str, list[Repeat]]:
        """Those whose turn it is: loops, and answers with stock phrases; a sort that has none is left out."""
        return {
            sort: [each[(_A_STEP * step + at) % len(each)] for at in range(min(_A_STEP, len(each)))]
            for sort in self._sorts
            if (each := (self.newest or {}).get(sort))
        }

    def state(self) -> dict[str, list[list[Any]]]:
        """For a checkpoint's JSON; empty where it was never asked."""
        return {
            sort: [[each.sample.ids, each.sample.answer_start, each.places] for each in repeats]
            for sort, repeats in (self.newest or {}).items()
        }


def read_repeats(state: Mapping[str, Any]) -> dict[str, list[Repeat]] | None:
    """What `OwnRepeats.state` gave, among other things; None where it gave nothing. Raises ValueError or TypeError where it is
    damaged."""
    sorts = (LOOPS, PHRASES)
    if all(state.get(sort) is None for sort in sorts):
        return None
    return {sort: _read(state.get(sort, [])) for sort in sorts}  # older ones know no phrases


def _read(state: Any) -> list[Repeat]:
    repeats = [Repeat(Sample(list(ids), start, _NOBODYS), list(places)) for ids, start, places in state]
    for repeat in repeats:
        ids, places = repeat.sample.ids, repeat.places
        if not all(type(each) is int and each >= 0 for each in (*ids, *places, repeat.sample.answer_start)):
            raise ValueError("an answer holds something else than token ids")
        if not places or not 0 < repeat.sample.answer_start <= len(ids) - 1 - max(places):
            raise ValueError("an answer is shorter than its places")
    return repeats


def loop_places(ids: Sequence[int]) -> list[int]:
    """The places of the tokens that end an n-gram that stood before.

    >>> loop_places([5, 6, 7, 8, 5, 6, 7, 9])
    [6]
    """
    seen: set[Ngram] = set()
    places = []
    for at, ngram in _ngrams(ids, _LOOP):
        if ngram in seen:
            places.append(at + _LOOP - 1)
        seen.add(ngram)
    return places


def stock_places(texts: Sequence[Sequence[int]], known: Sequence[Sequence[int]]) -> list[list[int]]:
    """For each text the places of the tokens of its stock phrases: of the n-grams that come in too many of the texts
    (scoring/phrases.py:too_many), beside how many of the data's own answers, `known`, have them.

    >>> same = [5, 6, 7, 8]
    >>> stock_places([[1, *same], [2, *same, 3], same, [4] * 3], [])
    [[1, 2, 3, 4], [1, 2, 3, 4], [0, 1, 2, 3], []]
    """
    found = Counter(ngram for ids in texts for ngram in _phrases(ids))
    frequent = {ngram for ngram, count in found.items() if too_many(count, len(texts), 0.0)}
    usual = Counter(ngram for ids in known for ngram in _phrases(ids) & frequent)
    stock = {each for each in frequent if too_many(found[each], len(texts), usual[each] / max(len(known), 1))}
    return [
        sorted({at + place for at, ngram in _ngrams(ids, _PHRASE) if ngram in stock for place in range(_PHRASE)}) for ids in texts
    ]


def _phrases(ids: Sequence[int]) -> set[Ngram]:
    return {ngram for _, ngram in _ngrams(ids, _PHRASE)}


def _ngrams(ids: Sequence[int], size: int) -> Iterator[tuple[int, Ngram]]:
    """Each with where it begins."""
    return ((at, tuple(ids[at : at + size])) for at in range(len(ids) - size + 1))


def _repeat(asked: Sample, answer: Sequence[int], places: list[int]) -> Repeat:
    return Repeat(Sample([*asked.ids[: asked.answer_start], *answer], asked.answer_start, _NOBODYS), places)
