"""What an export as an adapter measured, read from its JSON document or from a run's export/fidelity.json."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from irm_lite.core.errors import RunError
from irm_lite_tui.export.fidelity import Interval, ScoreRead, interval_of, number_of, optional_number, read_figures, score_of


@dataclass(frozen=True)
class AdapterMeasured:
    """An adapter beside the vector that it does the work of, each compared with the run's IRM on the same held-out answers."""

    path: Path
    measured_in: str
    samples: int
    tokens: int
    fidelity: float | None  # None: the IRM does nothing
    interval: Interval | None
    vector: float | None  # the vector's own fidelity there
    strengths: dict[str, float]  # of what the vector does at other strengths, the share that the adapter does
    seconds: float
    n_bytes: int
    # in the worst block, the share of the vector's power that arrives wrongly (the mean of (1 - A x)^2, behind norms what that
    # comes to); tuned, the share of the IRM's power that is lost
    worst: float | None  # None: nothing was predicted, it is a copy of the run's LoRA
    strengths_of: str  # "vector" or "IRM"
    tuned: str  # of further ranks: what the descent reached; empty: the vector's adapter
    score: ScoreRead | None = None


def read_adapter(document: Mapping[str, Any]) -> AdapterMeasured:
    """The figures of an export's JSON document. Raises RunError where they are missing or not numbers."""
    try:
        measured, vector = document["measured"], document.get("vector")
        between = measured["intervals_95"]["fidelity"]
        return AdapterMeasured(
            path=Path(document["adapter"]),
            measured_in=str(measured["measured_in"]),
            samples=int(measured["samples"]),
            tokens=int(measured["tokens"]),
            fidelity=optional_number(document["fidelity"]),
            interval=None if between is None else interval_of(between),
            vector=None if vector is None else optional_number(vector["fidelity"]),
            strengths={
                str(at)[:8]: float(value) for at, value in document["strengths"].items() if value is not None and isfinite(value)
            },
            seconds=number_of(document["seconds"]),
            n_bytes=int(document["bytes"]),
            worst=max((number_of(fit["error"]) for fit in document["predicted"]), default=None),
            strengths_of="IRM" if document.get("strengths_of") == "irm" else "vector",
            tuned=_tuned(document),
            score=None if document.get("score") is None else score_of(document["score"]),
        )
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        raise RunError(f"the adapter's figures cannot be read ({error})", "export it again") from None


def _tuned(document: Mapping[str, Any]) -> str:
    """As the CLI has it. Raises as `number_of`."""
    tuned = document.get("tuned")
    if tuned is None:
        return ""
    base, start, reached = (number_of(tuned[name]) for name in ("kl_base", "kl_start", "kl"))
    ranks = f"rank {int(document['rank'])} by least squares {start:.3f}, fitted on {reached:.3f}"
    return f"KL(IRM || it) on validation answers: base {base:.3f}; {ranks}"


def load_adapter(path: Path) -> AdapterMeasured | None:
    """The figures in a run's export/fidelity.json; None where there is no file, or no adapter in it. Raises RunError."""
    try:
        document = read_figures(path)
    except FileNotFoundError:
        return None
    found = document.get("adapter") if isinstance(document, dict) else None
    return None if found is None else read_adapter(found)
