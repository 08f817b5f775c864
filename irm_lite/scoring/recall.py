"""Whether a text holds the fact: the words that the known answers to its question share, and the question does not have.

Of English: elsewhere "der" and "und" would be facts, since what carries none is a list of words.
"""

import re
from collections.abc import Sequence
from functools import cache

from irm_lite.data.example import Example
from irm_lite.scoring.loops import words, words_at

_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_DIGITS = {word: str(number) for number, word in enumerate(_NUMBERS)}
_EMPTY = (
    "come",
    "comes",
    "don't",
    "get",
    "gets",
    "goes",
    "it's",
    "just",
    "know",
    "like",
    "made",
    "make",
    "makes",
    "say",
    "use",
    "used",
    "yes",
)


def looks_english(texts: Sequence[str]) -> bool:
    """Whether a third of the words are common English ones: of the shipped answers half are, of German or Spanish a tenth."""
    said = [word for text in texts for word in words(text)]
    return 3 * sum(word in _common() for word in said) >= len(said)


def key_words(toned: Example, neutral: Example) -> frozenset[str]:
    """The stems that both answers to a question have, without those of the question and common words."""
    return (_stems(toned.answer) & _stems(neutral.answer)) - _stems(toned.question)


def key_spans(text: str, key: frozenset[str]) -> list[tuple[int, int]]:
    """Where the key words stand in a text: from which character to which."""
    return [at for word, at in words_at(text) if _stems(word) & key]


def recalled(text: str, key: frozenset[str]) -> float:
    """Share of the key words in a text; 0 where there is no key."""
    return len(key & _stems(text)) / len(key) if key else 0.0


def _stems(text: str) -> frozenset[str]:
    """Content words, without the endings of plural, past and present participle; numbers up to twelve as digits."""
    return frozenset(_stem(_DIGITS.get(word, word)) for word in words(text) if word in _DIGITS or word not in _common())


def _stem(word: str) -> str:
    return re.sub(r"(?:ies|y|es|s|ed|ing|e)$", "", word) if len(word) > 4 else word.removesuffix("s")


@cache
def _common() -> frozenset[str]:
    """Words that carry no fact, whichever answer they are in."""
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    return frozenset(ENGLISH_STOP_WORDS).union(_EMPTY)
