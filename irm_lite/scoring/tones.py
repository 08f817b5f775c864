"""A small classifier of tones by their words, trained on answers to the same questions in each tone.

It sees lower-case words without punctuation: capitals, exclamation marks and length, which angry and joyful answers share with
babble, cannot carry it. scikit-learn is imported when it is trained.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from irm_lite.core.types import DoubleArray, IntArray
from irm_lite.data.dataset import load_dataset, tones
from irm_lite.data.text_measures import normalised

NEUTRAL = "neutral"
SURE = 0.5  # a tone is called from this probability on, else the text is neutral ...
SURE_OF_ONE = 0.8  # ... unless one of its sentences is as sure as this
ONE_WORD = 0.4  # a text of which one word makes more than this says nothing in any tone (six times "UGH") ...
FEW_WORDS = 6  # ... unless it has fewer words than this
FEWEST = 40  # training answers of a tone: with fewer, words of the questions decide
_FOLDS = 5
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


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
        """Train on texts (N) of these tones, "neutral" among them. Raises ValueError where no two texts have anything in common."""
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline, make_union

        words = TfidfVectorizer(preprocessor=normalised, ngram_range=(1, 3), token_pattern=r"\S+", sublinear_tf=True, min_df=2)
        letters = TfidfVectorizer(preprocessor=normalised, analyzer="char_wb", ngram_range=(3, 5), sublinear_tf=True, min_df=2)
        often = Counter(word for text in texts for word in set(normalised(text).split()))
        # A script without blanks has no words in this sense: each text is one.
        features = make_union(words, letters) if max(often.values(), default=0) > 1 else letters
        self._model: Any = make_pipeline(features, LogisticRegression(C=30.0, max_iter=2000))
        self._model.fit(list(texts), list(labels))
        self.classes: tuple[str, ...] = tuple(map(str, self._model.classes_))

    def probabilities(self, texts: Sequence[str]) -> DoubleArray:
        """(N, C), in the order of `classes`."""
        if not texts:
            return np.empty((0, len(self.classes)))
        found: DoubleArray = self._model.predict_proba(list(texts))
        return found

    def tones(self, texts: Sequence[str]) -> list[str]:
        """The tone of each text, or of one of its sentences: a long answer may end in an insult. Neutral where none is sure enough,
        and where the text has no words, or one over and over."""
        whole = self.probabilities(texts)
        return [self._tone(text, row) if _says_something(text) else NEUTRAL for text, row in zip(texts, whole, strict=True)]

    def _tone(self, text: str, whole: DoubleArray) -> str:
        called = self.classes[int(whole.argmax())] if whole.max() >= SURE else NEUTRAL
        sentences = [each for each in _SENTENCE_END.split(text) if len(each.split()) >= 3]
        if called != NEUTRAL or not sentences:
            return called
        rows = self.probabilities(sentences)
        rows[:, self.classes.index(NEUTRAL)] = 0
        strongest = rows[rows.max(1).argmax()]
        return self.classes[int(strongest.argmax())] if strongest.max() >= SURE_OF_ONE else NEUTRAL


def _says_something(text: str) -> bool:
    said = normalised(text).split()
    most = max(Counter(said).values(), default=0)
    return bool(said) and (len(said) < FEW_WORDS or most <= ONE_WORD * len(said))


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
    return _confusion(*_in_parts(rows))


def error_of_pairs(pairs: Sequence[tuple[str, str]], tone: str) -> float:
    """Share that is called something else, of pairs of an answer in the tone and a neutral one, in five parts. Raises ValueError
    where the texts have nothing in common."""
    rows = [
        (text, label, at % _FOLDS) for at, (toned, plain) in enumerate(pairs) for text, label in ((toned, tone), (plain, NEUTRAL))
    ]
    labels, called = _in_parts(rows)
    return sum(label != name for label, name in zip(labels, called, strict=True)) / len(labels)


def _in_parts(rows: Sequence[tuple[str, str, int]]) -> tuple[list[str], list[str]]:
    """Of texts with their tones and parts: the tones, and what they are called by a classifier that has not seen their part."""
    labels: list[str] = []
    called: list[str] = []
    for fold in range(_FOLDS):
        taught = [(text, label) for text, label, part in rows if part != fold]
        asked = [(text, label) for text, label, part in rows if part == fold]
        labels += [label for _, label in asked]
        model = ToneClassifier(*zip(*taught, strict=True))
        called += model.tones([text for text, _ in asked])
    return labels, called


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
