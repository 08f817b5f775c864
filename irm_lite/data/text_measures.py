"""Texts compared and measured, without torch: the normal form that tells copies, and the variety of what is said."""

import sys
import unicodedata
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
