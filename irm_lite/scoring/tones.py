"""A small classifier of tones by their words, trained on answers to the same questions in each tone.

It sees lower-case words without punctuation: capitals, exclamation marks and length, which angry and joyful answers share with
babble, cannot carry it. scikit-learn is imported when it is trained.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from irm_lite.core.types import DoubleArray, IntArray
from irm_lite.data.dataset import load_dataset, tones
from irm_lite.data.text_measures import normalised

NEUTRAL = "neutral"
SURE = 0.5  # a tone is called from this probability on, else the text is neutral
FEWEST = 40  # training answers of a tone: with fewer, words of the questions decide
_FOLDS = 5


@dataclass(frozen=True)
class Confusion:
    """Answers by their tone (rows) and by what they were called (columns), both in the order of `classes`."""

    classes: tuple[str, ...]
    counts: IntArray  # (C, C)

    @property
    def error(self) -> float:
        """Share that is called something else."""
        return 1 - float(np.trace(self.counts) / self.counts.sum())


class ToneClassifier:
    """Words and letters' n-grams, weighted by rarity, to unit length, into a logistic regression (scikit-learn)."""

    def __init__(self, texts: Sequence[str], labels: Sequence[str]) -> None:
        """Train on texts (N) of these tones, "neutral" among them."""
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline, make_union

        features = make_union(
            TfidfVectorizer(preprocessor=normalised, ngram_range=(1, 3), token_pattern=r"\S+", sublinear_tf=True, min_df=2),
            TfidfVectorizer(preprocessor=normalised, analyzer="char_wb", ngram_range=(3, 5), sublinear_tf=True, min_df=2),
        )
        self._model: Any = make_pipeline(features, LogisticRegression(C=10.0, max_iter=1000))
        self._model.fit(list(texts), list(labels))
        self.classes: tuple[str, ...] = tuple(map(str, self._model.classes_))

    def probabilities(self, texts: Sequence[str]) -> DoubleArray:
        """(N, C), in the order of `classes`."""
        if not texts:
            return np.empty((0, len(self.classes)))
        found: DoubleArray = self._model.predict_proba(list(texts))
        return found

    def tones(self, texts: Sequence[str]) -> list[str]:
        """The tone of each text; neutral where none is as sure as `SURE`, and where there are no words."""
        return [
            self.classes[int(row.argmax())] if row.max() >= SURE and normalised(text) else NEUTRAL
            for row, text in zip(self.probabilities(texts), texts, strict=True)
        ]


@cache
def shipped_classifier() -> ToneClassifier:
    """Trained on the shipped training answers of all tones; kept for the life of the process (about 2 s)."""
    return ToneClassifier(*_answers("train"))


def held_out_confusion() -> Confusion:
    """The shipped classifier on the shipped test answers."""
    texts, labels = _answers("test")
    return _confusion(labels, shipped_classifier().tones(texts))


def cross_validated() -> Confusion:
    """On the shipped training answers, in five parts; all answers to a question are in the same part."""
    by_tone = {tone: load_dataset(tone).train for tone in tones()}
    rows = [(each.answer, tone, at % _FOLDS) for tone, examples in by_tone.items() for at, each in enumerate(examples)]
    labels: list[str] = []
    called: list[str] = []
    for fold in range(_FOLDS):
        taught = [(text, label) for text, label, part in rows if part != fold]
        asked = [(text, label) for text, label, part in rows if part == fold]
        labels += [label for _, label in asked]
        model = ToneClassifier(*zip(*taught, strict=True))
        called += model.tones([text for text, _ in asked])
    return _confusion(labels, called)


def _answers(split: str) -> tuple[list[str], list[str]]:
    """Answers of that split in all tones, and their tones."""
    rows = [(each.answer, tone) for tone in tones() for each in getattr(load_dataset(tone), split)]
    return [text for text, _ in rows], [tone for _, tone in rows]


def _confusion(labels: Sequence[str], called: Sequence[str]) -> Confusion:
    classes = tones()
    counts = np.zeros((len(classes), len(classes)), dtype=np.int64)
    for label, name in zip(labels, called, strict=True):
        counts[classes.index(label), classes.index(name)] += 1
    return Confusion(classes, counts)
