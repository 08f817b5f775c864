"""What was heard of a speaker and of its base, made into numbers for each question: loops, tones, preferences, margins, choices."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from irm_lite.core.types import DoubleArray
from irm_lite.data.text_measures import distinct_2
from irm_lite.scoring.hearing import Heard
from irm_lite.scoring.loops import loops, words
from irm_lite.scoring.material import Material
from irm_lite.scoring.recall import key_words, recalled
from irm_lite.scoring.speaker import Answer

STRANGEST = 10.0  # times the perplexity of the base's own text, up to which a text costs nothing (docs/score.md)
TEXT_COLUMNS = (
    *("answers", "ended", "base_ended", "fluent", "looped", "distinct_2", "base_distinct_2"),
    *("tokens", "nll", "base_tokens", "base_nll", "reference_tokens", "reference_nll"),
    *("toned", "base_toned", "keyed", "recalled", "base_recalled"),
)
PAIR_COLUMNS = (
    *("pairs", "prefers", "base_prefers", "rises", "falls", "shift", "shift_squared"),
    *("preference", "base_preference", "preference_sum", "base_preference_sum", "margins", "margin", "base_margin"),
)
CHOICE_COLUMNS = ("choices", "right", "base_right")


@dataclass(frozen=True)
class Columns:
    """A speaker beside its base: one row a question, which is what the bootstrap draws."""

    text: DoubleArray  # (Q, TEXT_COLUMNS): sums over the decodings
    pairs: DoubleArray  # (Q or 0, PAIR_COLUMNS): the tone's answer against the neutral one
    choices: DoubleArray  # (C, CHOICE_COLUMNS)


def judge(heard: Heard, base: Heard, material: Material) -> Columns:
    """The numbers of `heard` beside those of the unsteered `base`, both on the same material."""
    return Columns(_texts(heard, base, material), _pairs(heard, base), _choices(heard, base))


def _texts(heard: Heard, base: Heard, material: Material) -> DoubleArray:
    rows = np.zeros((len(material.toned), len(TEXT_COLUMNS)))
    own = np.concatenate([np.zeros((1, 2)), *base.own.values()]).sum(0)
    usual = float(own[1] / max(own[0], 1))  # nats a token, of what the base writes itself
    pairs = zip(material.toned, material.neutral, strict=False) if material.in_english else ()
    keys = [key_words(sample.example, plain.example) for sample, plain in pairs]
    for name, written in heard.answers.items():
        plain = base.answers[name]
        toned, base_toned = _toned(written, material), _toned(plain, material)
        for at, (answer, before) in enumerate(zip(written, plain, strict=True)):
            key = keys[at] if keys else frozenset()
            rows[at] += [
                *(1, answer.ended, before.ended, _fluent(answer, heard.own[name][at], usual), loops(answer.text)),
                *(distinct_2(answer.text), distinct_2(before.text)),
                *(*heard.own[name][at], *base.own[name][at], *base.toned[at]),
                *(toned[at], base_toned[at]),
                *(bool(key), recalled(answer.text, key), recalled(before.text, key)),
            ]
    return rows


def _fluent(answer: Answer, nll: DoubleArray, usual: float) -> float:
    """0 where it says nothing or goes round in circles; else 1, less where the base finds it stranger than `STRANGEST` allows."""
    if not words(answer.text) or loops(answer.text):
        return 0.0
    return min(1.0, STRANGEST * float(np.exp(usual - _per_token(nll)))) if nll[0] else 1.0


def _toned(written: Sequence[Answer], material: Material) -> list[bool]:
    if material.classifier is None:
        return [False] * len(written)
    return [tone == material.tone for tone in material.classifier.tones([answer.text for answer in written])]


def _pairs(heard: Heard, base: Heard) -> DoubleArray:
    """Preference: log-odds of the tone's answer against the neutral one, in nats a token and as sums."""
    rows = np.zeros((len(heard.neutral), len(PAIR_COLUMNS)))
    for at in range(len(rows)):
        preference, before = (_per_token(each.neutral[at]) - _per_token(each.toned[at]) for each in (heard, base))
        sums = [each.neutral[at, 1] - each.toned[at, 1] for each in (heard, base)]
        shift = preference - before
        margin, base_margin = (_margin(each, at) for each in (heard, base))
        has_margin = len(heard.distractors[at]) > 0
        rows[at] = [
            *(1, preference > 0, before > 0, shift > 0, shift < 0, shift, shift**2),
            *(preference, before, *sums, has_margin, margin, base_margin),
        ]
    return rows


def _margin(heard: Heard, at: int) -> float:
    """By how many nats a token the right neutral answer is likelier than the distractors are on average; 0 where there are none."""
    wrong = heard.distractors[at]
    return float(np.mean([_per_token(each) for each in wrong]) - _per_token(heard.neutral[at])) if len(wrong) else 0.0


def _per_token(nll: DoubleArray) -> float:
    return float(nll[1] / nll[0])


def _choices(heard: Heard, base: Heard) -> DoubleArray:
    """Right where the right answer's NLL, summed over its tokens, is the lowest; never where that is no number."""
    rights = [[int((nlls[0, 1] < nlls[1:, 1]).all()) for nlls in each.choices] for each in (heard, base)]
    return np.array([np.ones(len(rights[0])), *rights], dtype=np.float64).T.reshape(-1, len(CHOICE_COLUMNS))
