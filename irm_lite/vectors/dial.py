"""A control vector as a dial: what is written at each strength, scored beside the base, in llama.cpp on one GGUF.

Preference (docs/score.md) is what the dial turns; sense and fluency are what it costs. The best strength is the positive one with
the highest score; its interval does not know that it was chosen: `eval` measures it on the test split, which is not used here.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats

from irm_lite.base.fingerprint import Match
from irm_lite.base.load import load_tokenizer
from irm_lite.core.bootstrap import Interval, interval, resampled_sums
from irm_lite.core.errors import DataError, InputError
from irm_lite.core.types import DoubleArray, Progress, unwatched
from irm_lite.data.dataset import load_dataset
from irm_lite.data.encoding import encode_all
from irm_lite.scoring.hearing import GREEDY, Heard, hear
from irm_lite.scoring.judging import PAIR_COLUMNS
from irm_lite.scoring.material import Extent, Material, gather
from irm_lite.scoring.parts import PARTS
from irm_lite.scoring.score import Score, score
from irm_lite.steering.control_vector import ControlVector, require_scale
from irm_lite.vectors.agreement_check import disagreement_of_file
from irm_lite.vectors.scored import MAX_LENGTH, encoder, room_for
from irm_lite.vectors.speakers import LlamaCppSpeaker

if TYPE_CHECKING:
    from irm_lite.llamacpp import Runtime

STRENGTHS = (-2.0, -1.5, -1.0, -0.75, -0.5, -0.25, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0)
QUESTIONS = 12  # each strength takes as long as a score of them
RANKED = (-1.0, 1.5)  # strengths between which preference is to rise
RISING = 0.95  # the rank correlation from which on a question's preference counts as rising
_FEWEST_RANKED = 5  # strengths, the base among them: of fewer any correlation is soon perfect
_WRITING = 10  # a written answer, with the base's NLL of it, takes so many times as long as the NLL of a known one


@dataclass(frozen=True)
class Turning:
    """The strengths that are tried, and on how much. Raises InputError where that makes no dial."""

    strengths: Sequence[float] = STRENGTHS  # 0, the base, is heard in any case
    extent: Extent = field(default_factory=lambda: Extent(QUESTIONS))

    def __post_init__(self) -> None:
        for strength in self.strengths:
            require_scale(strength)
        if not any(strength > 0 for strength in self.strengths):
            raise InputError("there is no strength above 0 to try", "write 0.5,1,1.5")
        if self.extent.questions == 0:
            raise InputError("a score of no questions makes no dial", "give 1 or more")


@dataclass(frozen=True)
class Point:
    """What is said at a strength, scored beside the base."""

    strength: float
    score: Score

    @property
    def value(self) -> float:
        """The score, in [0, 1]."""
        return self.score.figures["score"]

    @property
    def value_95(self) -> Interval:
        return self.score.intervals["score"]

    @property
    def preference(self) -> float:
        """Log-odds of the tone's answer against the neutral one, mean over the questions, nats a token."""
        return self.score.figures["preference"]

    @property
    def preferences(self) -> DoubleArray:
        """(Q), the same for each question."""
        rows: DoubleArray = self.score.trainings[0].pairs[:, PAIR_COLUMNS.index("preference")]
        return rows

    def to_dict(self) -> dict[str, Any]:
        figures = self.score.figures
        return {
            "strength": self.strength,
            "preference": self.preference,
            "preferences": self.preferences.tolist(),
            **{name: figures[name] for name in PARTS},
            "score": self.value,
            "score_95": list(self.value_95),
            "details": self.score.to_dict(),
        }


@dataclass(frozen=True)
class Dial:
    """All strengths that were tried, ascending, 0 among them."""

    gguf: Path
    data: str
    points: list[Point]
    match: Match
    disagreement: str | None = None  # of transformers and llama.cpp on the file

    @property
    def tried(self) -> list[Point]:
        """Those of which one may be the best: the positive ones."""
        return [point for point in self.points if point.strength > 0]

    @cached_property
    def best(self) -> Point:
        """The positive strength with the highest score, the smallest of equals; where all are 0, it says nothing."""
        return max(self.tried, key=lambda point: point.value)

    def at(self, strength: float) -> Point | None:
        return next((point for point in self.points if point.strength == strength), None)

    @property
    def ranked(self) -> list[Point]:
        """Those between which preference is to rise."""
        return [point for point in self.points if RANKED[0] <= point.strength <= RANKED[1]]

    @cached_property
    def correlations(self) -> DoubleArray | None:
        """(Q) Spearman's rank correlation of strength and preference over `ranked`, 0 for a question that nothing moves; None
        where too few strengths were tried there."""
        ranked = self.ranked
        if len(ranked) < _FEWEST_RANKED:
            return None
        preferences = np.stack([point.preferences for point in ranked], axis=1)
        strengths = [point.strength for point in ranked]
        moved = np.ptp(preferences, axis=1) > 0
        found = np.zeros(len(preferences))
        found[moved] = [float(stats.spearmanr(strengths, each).statistic) for each in preferences[moved]]
        return found

    @property
    def rising(self) -> float | None:
        """The share of questions whose correlation is at least `RISING`."""
        return None if self.correlations is None else float(np.mean(self.correlations >= RISING))

    @property
    def half(self) -> float | None:
        """The share of strength 1's effect on the mean preference that strength 0.5 has: 0.5 were straight. None where one of
        them was not tried, or strength 1 does not raise it."""
        effects = self._effects()
        return None if effects is None else float(effects[:, 0].sum() / effects[:, 1].sum())

    @property
    def half_95(self) -> Interval | None:
        effects = self._effects()
        if effects is None:
            return None
        drawn = resampled_sums(effects, self.points[0].score.seed)
        return interval(np.divide(drawn[:, 0], drawn[:, 1], out=np.zeros(len(drawn)), where=drawn[:, 1] != 0))

    def _effects(self) -> DoubleArray | None:
        """(Q, 2) on each question's preference: of strength 0.5, of strength 1."""
        base, half, one = (self.at(strength) for strength in (0.0, 0.5, 1.0))
        if base is None or half is None or one is None or one.preference <= base.preference:
            return None
        return np.stack([each.preferences - base.preferences for each in (half, one)], axis=1)

    def to_dict(self) -> dict[str, Any]:
        best, correlations = self.best, self.correlations
        return {
            "by": "score",
            "gguf": str(self.gguf),
            "data": self.data,
            "disagreement": self.disagreement,
            "best": None if best.value == 0 else {"strength": best.strength, "score": best.value, "score_95": list(best.value_95)},
            "chosen_among": len(self.tried),
            "dial": {
                "rising": self.rising,
                "rank_correlations": None if correlations is None else correlations.tolist(),
                "between": [self.ranked[0].strength, self.ranked[-1].strength],
                "half": self.half,
                "half_95": self.half_95,
            },
            "points": [point.to_dict() for point in self.points],
        }


def turn(
    vector: ControlVector,
    gguf: Path,
    data: str,
    *,
    model: str | None = None,
    answer_column: str = "answer",
    turning: Turning | None = None,
    on_progress: Progress = unwatched,
) -> Dial:
    """Hear the vector at every strength on the data's validation questions (greedy), and the base once.

    The test split stays for `eval`. `model` names where tokenizer and chat template come from (default: the GGUF). Raises an
    InputError where something is missing or does not fit: a DataError where the data have no neutral answers, which preference is
    taken against.
    """
    from irm_lite.llamacpp import Runtime
    from irm_lite.llamacpp.parallel import SEQUENCES, n_ctx_for

    turning = turning or Turning()
    strengths = sorted({0.0, *map(float, turning.strengths)})
    vector * max(strengths, key=abs)  # beyond float32 it is refused here, not after minutes
    tokenizer = load_tokenizer(model or str(gguf))
    dataset = load_dataset(data, answer_column)
    held_out = encode_all(tokenizer, dataset.validation, MAX_LENGTH)[0]
    if not held_out:
        raise DataError(f"none of {data}'s validation samples has at most {MAX_LENGTH} tokens", "give more or shorter rows")
    encoded = encoder(tokenizer, MAX_LENGTH)
    material = gather(data, dataset, held_out, encoded, answer_column=answer_column, extent=replace(turning.extent, choosing=True))
    if not material.neutral:
        raise DataError(f"no dial: {'; '.join(material.lacks)}", "give such data with --data, or calibrate --by trade")
    told = disagreement_of_file(gguf, tokenizer, material.toned)
    with Runtime(gguf, n_ctx=n_ctx_for(room_for(material)), n_sequences=SEQUENCES) as runtime:
        match = vector.require_fit(runtime.model.fingerprint, gguf.name)
        heard = _hear_each(runtime, vector, strengths, material, on_progress)
    points = [Point(strength, score(each, heard[0.0], material)) for strength, each in heard.items()]
    return Dial(gguf, data, points, match, told)


def _hear_each(
    runtime: "Runtime", vector: ControlVector, strengths: Sequence[float], material: Material, on_progress: Progress
) -> dict[float, Heard]:
    """By strength; the base, which is 0, first: where it cannot be heard, nothing can."""
    progress = _Whole(len(strengths), material, on_progress)
    base = LlamaCppSpeaker(runtime, partial(runtime.set_vector, None), progress)
    heard: dict[float, Heard] = {}
    for at, strength in enumerate(sorted(strengths, key=lambda each: each != 0)):
        progress.begin(at, strength)
        steered = LlamaCppSpeaker(runtime, partial(runtime.set_vector, vector, strength), progress) if strength else base
        heard[strength] = hear(steered, base, material, (GREEDY,))
        if not strength and score(heard[0.0], heard[0.0], material).value is None:
            raise DataError("no dial: neither choices nor other answers to tell sense by", "give more or shorter rows")
    return {strength: heard[strength] for strength in strengths}


class _Whole:
    """One progress over all strengths, from what the speakers report of each stage."""

    def __init__(self, strengths: int, material: Material, on_progress: Progress) -> None:
        self._known = sum(2 + len(wrong) for wrong in material.distractors) + sum(map(len, material.choices))
        self._written = _WRITING * len(material.toned)
        self._strengths = strengths
        self._on_progress = on_progress
        self._before, self._what = 0, ""

    def begin(self, done: int, strength: float) -> None:
        """So many strengths are done, this one is next."""
        self._before = done * (self._written + self._known)
        self._what = f"strength {strength:g}, {done + 1} of {self._strengths}"
        self._report(0)

    def __call__(self, done: int, of: int, what: str) -> None:
        if what == "generating":
            self._report(_WRITING * done)
        else:  # of the texts that were written, which are counted already, or of the known answers
            self._report(self._written + (done if of == self._known else 0))

    def _report(self, within: int) -> None:
        self._on_progress(self._before + within, self._strengths * (self._written + self._known), self._what)
