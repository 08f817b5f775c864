"""What comes back from answer to answer: the four words that more of them have than any others.

A loop stands within one answer, and no figure of single answers shows a phrase that stands in every other one of them.
Words are what blanks part: of a script without blanks nothing is found.
"""

import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from irm_lite.core.visible_text import short

SIZE = 4  # words: shorter ones are the language's own ("is a kind of")
_OFTEN, _FEWEST = 0.1, 3  # share of the answers, beyond that of the data's own; and answers: two may have the same by chance
_LONGEST = 24  # letters of a word that are shown


def too_many(count: int, answers: int, known: float) -> bool:
    """Whether a phrase in so many of the answers comes back too often, where a share `known` of the data's answers have it."""
    return count >= _FEWEST and count > (_OFTEN + known) * answers


@dataclass(frozen=True)
class Phrase:
    """The commonest phrase of some greedy answers; `known` is the share of the data's training answers that have it, `sampled` that
    of answers sampled to the same questions; None without any."""

    words: str
    answers: int
    of: int
    known: float | None
    sampled: float | None = None

    @property
    def too_often(self) -> bool:
        return too_many(self.answers, self.of, self.known or 0.0)

    def to_dict(self) -> dict[str, Any]:
        """For JSON; `said` is what a reader is told, None where it is nothing to tell."""
        return {**asdict(self), "said": str(self) if self.too_often else None}

    def __str__(self) -> str:
        said = " ".join(short(word, _LONGEST) for word in self.words.split())
        others = {"the sampled": self.sampled, "the training": self.known}
        beside = " and ".join(f"{share:.0%} of {whose} answers" for whose, share in others.items() if share is not None)
        return f'"{said}" is in {self.answers} of {self.of} greedy answers{beside and f" (in {beside})"}'


def commonest(texts: Sequence[str], known: Sequence[str], sampled: Sequence[str] = ()) -> Phrase | None:
    """The phrase that stands in most texts, each counted once; of several the first. None where no two texts share one.

    >>> commonest(["Oh, I feel so alone!", "No. I feel so alone.", "I am tired"], ["I feel so alone", "They fly away from me"])
    Phrase(words='i feel so alone', answers=2, of=3, known=0.5, sampled=None)
    """
    found = Counter(phrase for text in texts for phrase in dict.fromkeys(_phrases(text)))
    phrase = max(found, key=lambda each: found[each], default="")
    if found[phrase] < 2:
        return None
    return Phrase(phrase, found[phrase], len(texts), _share(phrase, known), _share(phrase, sampled))


def _share(phrase: str, texts: Sequence[str]) -> float | None:
    return sum(phrase in _phrases(text) for text in texts) / len(texts) if texts else None


def _phrases(text: str) -> list[str]:
    """In their order."""
    plain = unicodedata.normalize("NFC", text.casefold()).replace("\u2019", "'")
    said = [bare for word in plain.split() if (bare := _bare(word))]
    return [" ".join(said[at : at + SIZE]) for at in range(len(said) - SIZE + 1)]


def _bare(word: str) -> str:
    """Without the punctuation and signs around it. Not by \\w, which takes the vowels of Hindi for neither."""
    inner = [at for at, letter in enumerate(word) if unicodedata.category(letter)[0] not in "PSC"]
    return word[inner[0] : inner[-1] + 1] if inner else ""
