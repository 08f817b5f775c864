"""Whether a text goes round in circles: the rule, with its thresholds in one place."""

import re
import unicodedata
from dataclasses import dataclass

_WORD = re.compile(r"\w+(?:['\u2019]\w+)*")
_SPUN = re.compile(r"([^\W\d_]{1,3}?)\1{6,}")  # inside a word: "aaaaaaa", "hahahahahahaha"


@dataclass(frozen=True)
class LoopRule:
    """A text loops where a phrase comes again and again. Words are compared in lower case, without punctuation.

    The thresholds were chosen on one half of the labelled generations (tests/scoring/labelled.jsonl), docs/score.md has the
    agreement with the other: `in_a_row` allows "no, no, no" and "very, very big", which people write, and nothing longer.
    """

    in_a_row: tuple[tuple[int, int], ...] = ((1, 4), (3, 3), (40, 2))  # phrases of up to n words, m times one after another
    anywhere: tuple[tuple[int, int], ...] = ((3, 3), (7, 2))  # phrases of n words, m times, with at most ...
    between: int = 40  # ... so many words from one to the next: a long text may come back to something


RULE = LoopRule()


def words(text: str) -> list[str]:
    """The text's words in lower case, without punctuation."""
    return [word for word, _ in words_at(text.casefold())]


def words_at(text: str) -> list[tuple[str, tuple[int, int]]]:
    """The same words as they are written, each with the characters from which to which it goes."""
    plain = text if text.isascii() else "".join(map(_as_letter, text))
    return [(text[slice(*found.span())], found.span()) for found in _WORD.finditer(plain)]


def _as_letter(letter: str) -> str:
    """Itself, and a letter for a mark: \\w knows Hindi's and Tamil's vowel signs for none, and would part words at them."""
    return "x" if unicodedata.category(letter)[0] == "M" else letter


def loops(text: str, rule: LoopRule = RULE) -> bool:
    """Whether the text goes round in circles.

    >>> loops("I am not angry, I am not angry, I am not angry, and that is that")
    True
    >>> loops("No, no, no! It is a very, very long river, and you should know it")
    False
    """
    said = words(text)
    return _SPUN.search(text.casefold()) is not None or _in_a_row(said, rule) or _anywhere(said, rule)


def _in_a_row(said: list[str], rule: LoopRule) -> bool:
    """A phrase of n words that stands m times in a row: each of (m - 1) n words equals the one n before it."""
    shortest = 1
    for longest, times in rule.in_a_row:
        for size in range(shortest, min(longest, len(said) // times) + 1):
            run = 0
            for at in range(size, len(said)):
                run = run + 1 if said[at] == said[at - size] else 0
                if run == (times - 1) * size:
                    return True
        shortest = longest + 1
    return False


def _anywhere(said: list[str], rule: LoopRule) -> bool:
    """A phrase of n words that stands m times, none of them within another."""
    for size, times in rule.anywhere:
        newest: dict[tuple[str, ...], tuple[int, int]] = {}  # a phrase's newest place, and how often it was there
        for at in range(len(said) - size + 1):
            phrase = tuple(said[at : at + size])
            place, count = newest.get(phrase, (-size, 0))
            if at - place >= size:
                count = count + 1 if at - place - size <= rule.between else 1
                newest[phrase] = at, count
                if count == times:
                    return True
    return False
