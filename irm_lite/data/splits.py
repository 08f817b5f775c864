"""Which rows train, validate and test: as a file says, else by a hash of what is asked."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from irm_lite.data.example import Example

SPLITS = ("train", "validation", "test")

_ALONE = b""  # of a question that begins its conversation
_Keyed = list[tuple[str, Example]]  # what may not stand in two splits, and the example


@dataclass(frozen=True)
class Division:
    """Examples by split, and in words where that is not what the file says. `train` or `validation` is empty where nothing can be
    divided: all examples answer one conversation."""

    parts: dict[str, list[Example]]
    conversations: int  # that differ before the answer
    note: str = ""


def conversations(examples: Sequence[Example]) -> list[str]:
    """What may not stand in two splits, for each example: the last question; where the file asks it after different turns, all
    turns before the answer. System messages count only where nothing else differs: a question asked in two tones is one."""
    told: dict[str, bytes] = {}
    several = set()  # questions that the file asks after different turns
    for each in examples:
        opened = any(message["role"] != "system" for message in each.messages[:-2])
        turns = _digest(each.before_answer(system=False))[:8] if opened else _ALONE
        if told.setdefault(each.subject, turns) != turns:
            several.add(each.subject)
    found = [each.before_answer(system=False) if each.subject in several else each.subject for each in examples]
    return found if len(set(found)) > 1 else [each.before_answer(system=True) for each in examples]


def divide(examples: Sequence[Example], declared: Sequence[str | None]) -> Division:
    """`declared`: the split that each example's row names, None where it names none."""
    keys = conversations(examples)
    parts: dict[str, _Keyed] = {split: [] for split in SPLITS}
    for key, example, split in zip(keys, examples, declared, strict=True):
        parts[split or _by_hash(key)].append((key, example))
    note = _completed(parts) if any(declared) else ""
    for needy in ("train", "validation"):  # a handful of rows may hash into one split
        donor = None if parts[needy] else _donor(parts, needy)
        if donor:
            chosen = {min({key for key, _ in parts[donor]}, key=_digest)}
            _move(parts, chosen, donor, needy)
    return Division({split: [example for _, example in part] for split, part in parts.items()}, len(set(keys)), note)


def _completed(parts: dict[str, _Keyed]) -> str:
    """Make up for a split that a file's own column leaves out; what was done, in words."""
    count = sum(map(len, parts.values()))
    if not parts["train"]:
        every = [each for part in parts.values() for each in part]
        for split in SPLITS:
            parts[split] = [each for each in every if _by_hash(each[0]) == split]
        return f"no row's split is train: all {count} rows are split by a hash of the question"
    keys = sorted({key for key, _ in parts["train"]}, key=_digest)
    if parts["validation"] or len(keys) < 2:
        return ""
    chosen = {key for key in keys if _by_hash(key) == "validation"}
    least = 2 if len(keys) > 3 else 1
    if not least <= len(chosen) < len(keys):
        chosen = set(keys[:least])
    before = len(parts["train"])
    _move(parts, chosen, "train", "validation")
    moved = f"{len(chosen)} of the {len(keys)} questions of train ({len(parts['validation'])} of {before} rows)"
    return f"no row's split is validation: {moved} validate, chosen by a hash of the question"


def _donor(parts: dict[str, _Keyed], needy: str) -> str | None:
    """The largest split that can give a question and keep one; else the test split, which need not be."""
    by_size = sorted(parts, key=lambda split: len(parts[split]), reverse=True)
    able = (split for split in by_size if len({key for key, _ in parts[split]}) > 1)
    return next(able, "test" if parts["test"] and any(parts[other] for other in parts if other not in ("test", needy)) else None)


def _move(parts: dict[str, _Keyed], chosen: set[str], donor: str, to: str) -> None:
    parts[to] += [each for each in parts[donor] if each[0] in chosen]
    parts[donor] = [each for each in parts[donor] if each[0] not in chosen]


def _by_hash(key: str) -> str:
    bucket = _digest(key)[0] % 10
    return ("validation", "test")[bucket] if bucket < 2 else "train"


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
