"""Texts compared and measured, without torch: the normal form that tells copies, and the variety of what is said."""

import sys
import unicodedata
from collections.abc import Sequence
from functools import cache
from itertools import pairwise


def normalised(text: str) -> str:
    """The text in lower case (casefold), without punctuation, with single spaces: equal for what differs in nothing else."""
    return " ".join(text.casefold().translate(_punctuation()).split())


@cache
def _punctuation() -> dict[int, None]:
    """Unicode's categories P, as a table for str.translate."""
    return {code: None for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code)).startswith("P")}


def distinct_2(*texts: str) -> float:
    """Share of different ones among the word pairs within the texts (Li et al. 2016, arXiv 1510.03055); 0 where there is none."""
    pairs = [pair for text in texts for pair in pairwise(text.lower().split())]
    return len(set(pairs)) / max(len(pairs), 1)


def first_difference(one: Sequence[object], other: Sequence[object]) -> int:
    """The first place at which two texts or lists differ; the length of the shorter where one begins the other."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, pair in pairs if pair[0] != pair[1]), min(len(one), len(other)))
