"""The score: four parts in [0, 1] and their harmonic mean, with bootstrap intervals over questions, for one training or several.

docs/score.md has the formulas with their reasons, and what each part cannot see.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from irm_lite.core.bootstrap import RESAMPLES, Interval, interval, resampled_counts, resampled_sums
from irm_lite.core.types import DoubleArray
from irm_lite.scoring.hearing import GREEDY, SAMPLED, Heard
from irm_lite.scoring.judging import CHOICE_COLUMNS, PAIR_COLUMNS, TEXT_COLUMNS, Columns, judge
from irm_lite.scoring.material import Material
from irm_lite.scoring.parts import PARTS
from irm_lite.scoring.phrases import Phrase, commonest

CHANCE = 0.25  # of four answers
Figures = dict[str, DoubleArray]


@dataclass(frozen=True)
class Score:
    """How a speaker does beside its base. `lacks`: what could not be measured, a line each."""

    trainings: list[Columns]  # of the same questions; one for each training that is combined
    by_preference: bool = False  # the tone is told by preference: there is no classifier
    lacks: list[str] = field(default_factory=list)
    seed: int = 0  # of what is drawn for the intervals
    phrase: Phrase | None = None  # the commonest of the greedy answers of one training

    @cached_property
    def figures(self) -> dict[str, float]:
        """All that was measured, mean over the trainings; the parts and "score" among them. What could not be is not there."""
        each = [_figures([part.sum(0) for part in _parts(columns)], self.by_preference) for columns in self.trainings]
        return {name: float(np.mean([found[name] for found in each])) for name in each[0]}

    @cached_property
    def intervals(self) -> dict[str, Interval]:
        """95% intervals of the same: questions are drawn with replacement, and so are the trainings where there are several."""
        drawn = [_figures(_resampled(columns, self.seed), self.by_preference) for columns in self.trainings]
        weights = resampled_counts(len(drawn), seed=self.seed + 1) / len(drawn)  # (R, trainings)
        means = {name: (weights * np.stack([found[name] for found in drawn], axis=1)).sum(1) for name in drawn[0]}
        return {name: interval(values) for name, values in means.items()}

    @property
    def value(self) -> float | None:
        """The harmonic mean of the parts, 0 where one of them is 0; None where one could not be measured."""
        return self.figures.get("score")

    @property
    def size(self) -> str:
        """On how much it was measured, in words."""
        columns = self.trainings[0]
        several = f", {len(self.trainings)} trainings" if len(self.trainings) > 1 else ""
        return f"{len(columns.text)} questions, {len(columns.choices)} choices{several}"

    def to_dict(self) -> dict[str, Any]:
        """For JSON: `value` with its interval, the parts, all figures."""
        figures, intervals = self.figures, self.intervals
        return {
            "value": self.value,
            "interval_95": list(intervals["score"]) if "score" in figures else None,
            "parts": {name: figures.get(name) for name in PARTS},
            "parts_95": {name: list(intervals[name]) if name in figures else None for name in PARTS},
            "figures": {name: value for name, value in figures.items() if name not in ("score", *PARTS)},
            "tone_by": "preference" if self.by_preference else "classifier",
            "questions": {
                name: len(part) for name, part in zip(("text", "pairs", "choices"), _parts(self.trainings[0]), strict=True)
            },
            "trainings": len(self.trainings),
            "phrase": self.phrase and self.phrase.to_dict(),
            "lacks": self.lacks,
        }


def score(heard: Heard, base: Heard, material: Material) -> Score:
    """The score of what was heard of a speaker, beside what was heard of its base."""
    greedy, sampled = ([answer.text for answer in heard.answers.get(each.name, [])] for each in (GREEDY, SAMPLED))
    phrase = commonest(greedy, material.train_answers, sampled)
    by_preference = material.classifier is None and bool(material.neutral)
    return Score([judge(heard, base, material)], by_preference, material.lacks, material.seed, phrase)


def combined(scores: Sequence[Score]) -> Score:
    """One score of several trainings (seeds) on the same questions: the mean, its interval over questions and trainings.

    An interval over three trainings tells little of the spread between them: it is at least as wide as what was seen.
    """
    first = scores[0]
    trainings = [columns for each in scores for columns in each.trainings]
    return Score(trainings, first.by_preference, first.lacks, first.seed)


def _parts(columns: Columns) -> tuple[DoubleArray, DoubleArray, DoubleArray]:
    return columns.text, columns.pairs, columns.choices


def _resampled(columns: Columns, seed: int) -> list[DoubleArray]:
    """Sums over questions drawn with replacement: (R, columns) of each table; the same draws for every training."""
    return [resampled_sums(part, seed) if len(part) else np.zeros((RESAMPLES, part.shape[1])) for part in _parts(columns)]


def _figures(sums: Sequence[DoubleArray], by_preference: bool) -> Figures:
    """From sums (..., columns) of the three tables: figures, parts and the score, each (...)."""
    text, pairs, choices = sums
    found: Figures = {}
    if np.any(text):
        found |= _of_text(text, classified=bool(np.any(pairs)) and not by_preference)
    if np.any(pairs):
        found |= _of_pairs(pairs)
        if by_preference:
            found["tone"] = _beyond(found["prefers"], found["base_prefers"])
    if np.any(choices):
        found |= _of_choices(choices)
    kept = [found[name] for name in ("kept_choices", "kept_margin", "kept_facts") if name in found]
    if kept:
        found["sense"] = np.min(kept, axis=0)  # what is not known and what is not said is lost alike
    if all(name in found for name in PARTS):
        found["score"] = _harmonic([found[name] for name in PARTS])
    return found


def _of_text(sums: DoubleArray, classified: bool) -> Figures:
    at = dict(zip(TEXT_COLUMNS, np.moveaxis(sums, -1, 0), strict=True))
    answers = at["answers"]
    found = {name: at[name] / answers for name in ("ended", "base_ended", "fluent", "looped", "distinct_2", "base_distinct_2")}
    nll, base_nll = (_ratio(at[name], at[tokens]) for name, tokens in (("nll", "tokens"), ("base_nll", "base_tokens")))
    reference = _ratio(at["reference_nll"], at["reference_tokens"])
    found |= {"perplexity_ratio": np.exp(nll - base_nll), "reference_ratio": np.exp(reference - base_nll)}
    found["fluency"] = found["fluent"] * _kept(found["ended"], found["base_ended"])
    if classified:
        found |= {"toned": at["toned"] / answers, "base_toned": at["base_toned"] / answers}
        found["tone"] = _beyond(found["toned"], found["base_toned"])
    if np.any(at["keyed"]):
        found |= {name: _ratio(at[name], at["keyed"]) for name in ("recalled", "base_recalled")}
        found["kept_facts"] = _kept(found["recalled"], found["base_recalled"])
    return found


def _of_pairs(sums: DoubleArray) -> Figures:
    at = dict(zip(PAIR_COLUMNS, np.moveaxis(sums, -1, 0), strict=True))
    pairs = at["pairs"]
    names = ("prefers", "base_prefers", "preference", "base_preference", "preference_sum", "base_preference_sum", "shift")
    found = {name: at[name] / pairs for name in names}
    found["wrong_way"] = at["falls"] / pairs
    found["shift_spread"] = np.sqrt(np.maximum(at["shift_squared"] / pairs - found["shift"] ** 2, 0))
    found["steerability"] = np.maximum((at["rises"] - at["falls"]) / pairs, 0)  # chance moves half of them each way
    if np.any(at["margins"]):
        found |= {name: _ratio(at[name], at["margins"]) for name in ("margin", "base_margin")}
        found["kept_margin"] = _kept(found["margin"], found["base_margin"])
    return found


def _of_choices(sums: DoubleArray) -> Figures:
    at = dict(zip(CHOICE_COLUMNS, np.moveaxis(sums, -1, 0), strict=True))
    found = {"choices": at["right"] / at["choices"], "base_choices": at["base_right"] / at["choices"]}
    found["kept_choices"] = _kept(found["choices"] - CHANCE, found["base_choices"] - CHANCE)
    return found


def _ratio(a: DoubleArray, b: DoubleArray) -> DoubleArray:
    """a / b, 0 where b is 0."""
    return np.divide(a, b, out=np.zeros(np.broadcast(a, b).shape), where=b != 0)


def _kept(now: DoubleArray, before: DoubleArray) -> DoubleArray:
    """How much of what the base has is left, in [0, 1]; all of it where the base has nothing."""
    return np.where(before > 0, np.clip(_ratio(now, before), 0, 1), 1.0)


def _beyond(now: DoubleArray, before: DoubleArray) -> DoubleArray:
    """What was gained of what the base lacks, in [0, 1]."""
    return np.clip(_ratio(now - before, 1 - before), 0, 1)


def _harmonic(parts: Sequence[DoubleArray]) -> DoubleArray:
    stacked = np.stack(parts)
    least = stacked.min(0)
    return np.where(least > 0, len(parts) / (1 / np.where(stacked > 0, stacked, 1)).sum(0), 0.0)
