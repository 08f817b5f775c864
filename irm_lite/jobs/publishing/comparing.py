"""What was made again beside what was published: the same, or how far off in each block, and what differs here."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from irm_lite.core.types import DoubleArray
from irm_lite.jobs.publishing.lead import Lead
from irm_lite.steering.adapter import Factors

_ABSENT = "none"


@dataclass(frozen=True)
class Off:
    """How far what a block is given, v, is from the published u: cosine of the two, and |v - u| / |u|; of an adapter, whose u and v
    are maps, in all their entries. Both NaN where u is zero."""

    block: int
    cosine: float
    relative: float


@dataclass(frozen=True)
class Compared:
    """`off` by block, for those that both have; `only` are blocks that one of them has; `changed` says what is not as it was where
    the published one was made, in words, `unknown` what that folder does not tell."""

    hashed: str  # what of it: directions, or factors
    published: str  # their SHA-256
    made: str
    same_file: bool  # the files' bytes too
    off: list[Off]
    only: list[int]
    changed: list[str]
    unknown: list[str]

    @property
    def same(self) -> bool:
        return self.published == self.made

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "same": self.same,
            "same_file": self.same_file,
            f"{self.hashed}_sha256": {"published": self.published, "made": self.made},
            "blocks": [asdict(each) for each in self.off],
            "blocks_of_one_alone": self.only,
            "changed": self.changed,
            "unknown": self.unknown,
        }


def compare(published: Lead, made: Lead) -> tuple[list[Off], list[int]]:
    """By block, and the blocks that only one has."""
    before, now = published.added, made.added
    both = sorted(before.keys() & now.keys())
    return [_off(block, before[block], now[block]) for block in both], sorted(before.keys() ^ now.keys())


def _off(block: int, published: Factors, made: Factors) -> Off:
    """Without the maps themselves, which are large: <B A, B' A'> is the sum of (B^T B') (A A'^T), entry by entry."""
    rank = max(published.rank, made.rank)
    (a, b), (a_now, b_now) = _of_rank(published, rank), _of_rank(made, rank)
    norm, other = _inner(a, b, a, b) ** 0.5, _inner(a_now, b_now, a_now, b_now) ** 0.5
    if norm == 0:
        return Off(block, float("nan"), float("nan"))
    cosine = _inner(a, b, a_now, b_now) / (norm * other) if other else 0.0
    a_off, b_off = np.concatenate([a_now, a_now - a]), np.concatenate([b_now - b, b], axis=1)  # B' A' - B A, 0 where they are equal
    return Off(block, cosine, max(_inner(a_off, b_off, a_off, b_off), 0.0) ** 0.5 / norm)


def _of_rank(factors: Factors, rank: int) -> tuple[DoubleArray, DoubleArray]:
    """A (rank, n_in) and B (n_out, rank), with zeros beyond the rank that there is."""
    more = rank - factors.rank
    return np.pad(factors.a.astype(np.float64), ((0, more), (0, 0))), np.pad(factors.b.astype(np.float64), ((0, 0), (0, more)))


def _inner(a: DoubleArray, b: DoubleArray, other_a: DoubleArray, other_b: DoubleArray) -> float:
    return float(((b.T @ other_b) * (a @ other_a.T)).sum())


def differences(before: Mapping[str, Any], now: Mapping[str, Any], names: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """In words: what is another now, and what is not known of before. `names`: what to call each key, by key."""
    changed = [
        f"{name} {before[key]} -> {now.get(key, _ABSENT)}"
        for key, name in names.items()
        if key in before and before[key] != now.get(key)
    ]
    return changed, [name for key, name in names.items() if key not in before]


def compared(published: Lead, made: Lead, same_file: bool, changed: list[str], unknown: list[str]) -> Compared:
    off, only = compare(published, made)
    return Compared(published.hashed, published.digest, made.digest, same_file, off, only, changed, unknown)
