"""What an export measured, read from its JSON document or from a run's export/fidelity.json."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from irm_lite.core.errors import RunError
from irm_lite.core.files.reading import read_json
from irm_lite.scoring.parts import PARTS

_MOST_LINES, _MOST_LETTERS = 8, 300  # of what a score lacks
_NAMES = ("nll_base", "nll_irm", "nll_vector", "kl_irm_base", "kl_irm_vector", "top1_agreement")
_LONGEST = 600  # characters of a warning
Interval = tuple[float, float]


@dataclass(frozen=True)
class ScoreRead:
    """The score of a steered text; `value` is None where a part could not be measured, which `lacks` says in lines."""

    value: float | None
    interval: Interval | None
    parts: dict[str, float | None]
    questions: int
    lacks: list[str]
    phrase: str | None = None  # what comes back too often from answer to answer, in words; None: nothing, or an older score


@dataclass(frozen=True)
class Measured:
    """Means over the answer tokens, NLL and KL in nats a token, each with its 95% interval."""

    vector: Path
    method: str
    measured_in: str
    samples: int
    tokens: int
    means: dict[str, float]
    intervals: dict[str, Interval]
    fidelity: float | None  # None: the IRM does nothing of which a vector could carry a share
    fidelity_interval: Interval | None
    input_dependent: float | None  # share of the IRM's output that varies with the input
    disagreement: str | None = None  # of transformers and llama.cpp on the file that it was measured on
    score: ScoreRead | None = None  # None: an older export, or one without
    unsteered: str | None = None  # that the IRM or the vector does nothing


def read_measured(document: Mapping[str, Any]) -> Measured:
    """The figures of an export's JSON document. Raises RunError where they are missing or not numbers."""
    try:
        share, said, still = (document.get(key) for key in ("input_dependent_share", "disagreement", "unsteered"))
        between = document["intervals_95"]["fidelity"]
        return Measured(
            vector=Path(document["vector"]),
            method=str(document["method"]),
            measured_in=str(document["measured_in"]),
            samples=int(document["samples"]),
            tokens=int(document["tokens"]),
            means={name: number_of(document[name]) for name in _NAMES},
            intervals={name: interval_of(document["intervals_95"][name]) for name in _NAMES},
            fidelity=optional_number(document["fidelity"]),
            fidelity_interval=None if between is None else interval_of(between),
            input_dependent=None if share is None else number_of(share["overall"]),
            disagreement=None if said is None else str(said)[:_LONGEST],
            score=None if document.get("score") is None else score_of(document["score"]["vector"]),
            unsteered=None if still is None else str(still)[:_LONGEST],
        )
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        raise RunError(f"the export's figures cannot be read ({error})", "export again") from None


def read_figures(path: Path) -> Any:
    """What a run's export/fidelity.json holds. Raises FileNotFoundError, or RunError where it cannot be read."""
    try:
        return read_json(path, 1 << 22)
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read ({error})", "export again") from None


def load_measured(path: Path) -> Measured | None:
    """The figures in a run's export/fidelity.json; None where there is no file, or an adapter alone in it. Raises RunError."""
    try:
        document = read_figures(path)
    except FileNotFoundError:
        return None
    if not isinstance(document, dict):
        raise RunError(f"{path} holds no results", "export again")
    if "vector" not in document and "adapter" in document:
        return None
    return read_measured(document)


def score_of(found: Any) -> ScoreRead:
    """As `irm-lite eval` writes one. Raises KeyError, TypeError, ValueError or AttributeError."""
    interval = found["interval_95"]
    phrase = (found.get("phrase") or {}).get("said")
    return ScoreRead(
        value=optional_number(found["value"]),
        interval=None if interval is None else interval_of(interval),
        parts={name: optional_number(found["parts"][name]) for name in PARTS},
        questions=int(found["questions"]["text"]),
        lacks=[str(line)[:_MOST_LETTERS] for line in found["lacks"][:_MOST_LINES]],
        phrase=None if phrase is None else str(phrase)[:_MOST_LETTERS],
    )


def optional_number(value: Any) -> float | None:
    """A number, or None. Raises ValueError or TypeError, as the next two."""
    return None if value is None else number_of(value)


def number_of(value: Any) -> float:
    """A finite number."""
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{number} is not finite")
    return number


def interval_of(value: Any) -> Interval:
    """Two finite numbers."""
    low, high = value
    return number_of(low), number_of(high)
