"""A vector that was made again beside the published one: the same, or how far each direction is off, and what differs here."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from irm_lite.jobs.publishing.digests import digest_of
from irm_lite.steering.control_vector import ControlVector

_ABSENT = "none"


@dataclass(frozen=True)
class Off:
    """How far a block's direction v is from the published u: cosine of the two, and |v - u| / |u|. Both NaN where u is zero."""

    block: int
    cosine: float
    relative: float


@dataclass(frozen=True)
class Compared:
    """`off` by block, for those that both have; `only` are blocks that one of them has; `changed` says what is not as it was where
    the published one was made, in words, `unknown` what that folder does not tell."""

    published: str  # SHA-256 of the directions
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
            "directions_sha256": {"published": self.published, "made": self.made},
            "blocks": [asdict(each) for each in self.off],
            "blocks_of_one_alone": self.only,
            "changed": self.changed,
            "unknown": self.unknown,
        }


def compare(published: ControlVector, made: ControlVector) -> tuple[list[Off], list[int]]:
    """By block, and the blocks that only one has."""
    both = sorted(published.directions.keys() & made.directions.keys())
    only = sorted(published.directions.keys() ^ made.directions.keys())
    return [_off(block, published.directions[block], made.directions[block]) for block in both], only


def _off(block: int, published: Any, made: Any) -> Off:
    before, now = published.astype(np.float64), made.astype(np.float64)
    norm, other = np.linalg.norm(before), np.linalg.norm(now)
    if norm == 0:
        return Off(block, float("nan"), float("nan"))
    cosine = float(before @ now / (norm * other)) if other else 0.0
    return Off(block, cosine, float(np.linalg.norm(now - before) / norm))


def differences(before: Mapping[str, Any], now: Mapping[str, Any], names: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """In words: what is another now, and what is not known of before. `names`: what to call each key, by key."""
    changed = [
        f"{name} {before[key]} -> {now.get(key, _ABSENT)}"
        for key, name in names.items()
        if key in before and before[key] != now.get(key)
    ]
    return changed, [name for key, name in names.items() if key not in before]


def compared(published: ControlVector, made: ControlVector, same_file: bool, changed: list[str], unknown: list[str]) -> Compared:
    off, only = compare(published, made)
    return Compared(digest_of(published), digest_of(made), same_file, off, only, changed, unknown)
