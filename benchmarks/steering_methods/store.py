"""The JSON document of a comparison: settings, what the base says, tries on validation, results. Written after each of them."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from irm_lite.core.errors import InputError
from irm_lite.core.files.atomic import write_text
from irm_lite.core.files.reading import read_json
from irm_lite.core.types import DoubleArray
from irm_lite.scoring.hearing import Heard
from irm_lite.scoring.judging import CHOICE_COLUMNS, PAIR_COLUMNS, TEXT_COLUMNS, Columns
from irm_lite.scoring.score import Score
from irm_lite.scoring.speaker import Answer
from steering_methods.method import Variant

FORMAT = 1
LARGEST = 256 << 20  # bytes
Document = dict[str, Any]


@dataclass(frozen=True)
class Try:
    """One measurement on validation: the score (0 where there is none), and the NLL of the tone's answers in nats a token."""

    seed: int
    variant: Variant
    strength: float
    score: float
    nll: float


@dataclass(frozen=True)
class Result:
    """One training of a method, on the test questions. `side_effect`: KL(base || steered) on neutral answers, nats a token."""

    method: str
    seed: int
    variant: Variant
    strength: float | None  # None: it has none
    place: str
    seconds: float  # of training
    parameters: int
    score: Score
    nll: float
    side_effect: float | None
    whole_seconds: float  # with the choosing and the scoring
    losses: list[float] = field(default_factory=list)

    def to_dict(self) -> Document:
        own = {name: value for name, value in self.__dict__.items() if name != "score"}
        (columns,) = self.score.trainings
        kept = {name: getattr(columns, name).tolist() for name in ("text", "pairs", "choices")}
        return {
            **own,
            "columns": kept,
            "by_preference": self.score.by_preference,
            "lacks": self.score.lacks,
            "score": self.score.to_dict(),  # for readers: it is made of the columns again
        }


def result_from(data: Document) -> Result:
    widths = {"text": TEXT_COLUMNS, "pairs": PAIR_COLUMNS, "choices": CHOICE_COLUMNS}
    columns = Columns(**{name: _array(data["columns"][name], len(of)) for name, of in widths.items()})
    own = {name: value for name, value in data.items() if name not in ("columns", "by_preference", "lacks", "score")}
    return Result(**own, score=Score([columns], data["by_preference"], data["lacks"]))


class Store:
    """A document in a file, or in memory alone (path None)."""

    def __init__(self, path: Path | None, settings: Document) -> None:
        """Raises InputError where the file holds another comparison, or none."""
        self.path = path
        self.document: Document = {"format": FORMAT, "settings": settings}
        self.document |= {"base": {}, "tries": {}, "results": {}, "failed": {}, "left_out": {}}
        if path is not None and path.exists():
            found = read_document(path)
            differs = [name for name, value in settings.items() if found["settings"].get(name) != value]
            if differs:
                was, now = found["settings"].get(differs[0]), settings[differs[0]]
                raise InputError(
                    f"{path} was made with {differs[0]} {was!r}, not {now!r}", "give another --json, or the same flags"
                )
            self.document = found

    def _write(self) -> None:
        if self.path is not None:
            write_text(self.path, json.dumps(self.document) + "\n")

    def heard(self, place: str, split: str) -> Heard | None:
        """What the unsteered base said."""
        found = self.document["base"].get(place, {}).get(split)
        return None if found is None else _heard_from(found)

    def keep_heard(self, place: str, split: str, heard: Heard) -> None:
        self.document["base"].setdefault(place, {})[split] = _heard_to(heard)
        self._write()

    def tries(self, method: str) -> list[Try]:
        return [Try(**each) for each in self.document["tries"].get(method, [])]

    def keep_try(self, method: str, found: Try) -> None:
        self.document["tries"].setdefault(method, []).append(asdict(found))
        self._write()

    def result(self, method: str, seed: int) -> Result | None:
        found = self.document["results"].get(method, {}).get(str(seed))
        return None if found is None else result_from(found)

    def variant(self, method: str) -> Variant | None:
        """The one that the method's results have; None where there is no result yet."""
        found: Variant | None = self._of_first_result(method, "variant")
        return found

    def strength(self, method: str) -> float | None:
        """The same; None where there is no strength to choose, too."""
        found: float | None = self._of_first_result(method, "strength")
        return found

    def _of_first_result(self, method: str, key: str) -> Any:
        found = next(iter(self.document["results"].get(method, {}).values()), None)
        return None if found is None else found[key]

    def keep_result(self, found: Result) -> None:
        self.document["results"].setdefault(found.method, {})[str(found.seed)] = found.to_dict()
        self.document["failed"].get(found.method, {}).pop(str(found.seed), None)
        self._write()

    def keep_failure(self, method: str, seed: int, reason: str) -> None:
        self.document["failed"].setdefault(method, {})[str(seed)] = reason
        self._write()

    def leave_out(self, method: str, reason: str) -> None:
        self.document["left_out"][method] = reason
        self._write()


def read_document(path: Path) -> Document:
    """Raises InputError where the file is no document of a comparison."""
    try:
        found = read_json(path, LARGEST)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error})", "give the file of --json") from None
    if not isinstance(found, dict) or found.get("format") != FORMAT or "results" not in found:
        raise InputError(f"{path} is no document of benchmarks/steering.py", "give the file of --json")
    return found


def results_of(document: Document) -> dict[str, list[Result]]:
    """By method, each training's."""
    return {name: [result_from(each) for each in seeds.values()] for name, seeds in document["results"].items()}


def base_nll(document: Document) -> float | None:
    """Of the tone's test answers by the unsteered base in llama.cpp, nats a token; None where it was not measured."""
    found = document["base"].get("llama.cpp", {}).get("test")
    if found is None:
        return None
    tokens, nll = _heard_from(found).toned.sum(0)
    return float(nll / tokens)


def _heard_to(heard: Heard) -> Document:
    return {
        "answers": {name: [asdict(each) for each in written] for name, written in heard.answers.items()},
        "own": {name: each.tolist() for name, each in heard.own.items()},
        "toned": heard.toned.tolist(),
        "neutral": heard.neutral.tolist(),
        "distractors": [each.tolist() for each in heard.distractors],
        "choices": [each.tolist() for each in heard.choices],
    }


def _heard_from(data: Document) -> Heard:
    return Heard(
        {
            name: [Answer(each["text"], tuple(each["ids"]), each["ended"]) for each in found]
            for name, found in data["answers"].items()
        },
        {name: _array(each, 2) for name, each in data["own"].items()},
        _array(data["toned"], 2),
        _array(data["neutral"], 2),
        [_array(each, 2) for each in data["distractors"]],
        [_array(each, 2) for each in data["choices"]],
    )


def _array(rows: Sequence[Sequence[float]], width: int) -> DoubleArray:
    return np.array(rows, dtype=np.float64).reshape(-1, width)
