"""RUN/ablations: a JSON file for each index and place, and for each set of them, written by `ablate` and read into the report."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from irm_lite.analysis.ablation import Ablation
from irm_lite.analysis.subsets import Subset
from irm_lite.core.errors import RunError
from irm_lite.core.files.atomic import write_text
from irm_lite.core.files.reading import read_json
from irm_lite.runs.directory import RunDirectory
from irm_lite.steering.irm_files import read_saved

_SET = "set-"  # what a set's file begins with
_NORMS = ("free", "steered", "base")
_NUMBERS = ("through_norms", "explained", "controls_explained", "explained_rank", "explained_p")  # that a record may have
_PAIRS = ("through_norms_95", "explained_95", "controls_explained_95")


def save_ablations(found: Sequence[Ablation], run: RunDirectory, recording: str, seed: int) -> list[Path]:
    """A file for each index, place and way to hold the norms in RUN/ablations, in the place of an earlier one."""
    paths, digest = [], read_saved(run.path).digest
    for each in found:
        held = "" if each.norms == "free" else f"-norms-of-{each.norms}"
        paths.append(run.ablations / f"{each.index}-{each.where}{held}.json")
        document = {
            "irm_sha256": digest,
            "recording": recording,
            "seed": seed,
            "random_indices": each.random_indices,
            "matched_indices": each.matched_indices,
            "effects": each.to_list(),
        }
        write_text(paths[-1], json.dumps(document, indent=1) + "\n")
    return paths


def save_subsets(found: Sequence[Subset], run: RunDirectory, recording: str, seed: int) -> list[Path]:
    """A file for each set in RUN/ablations, in the place of an earlier one."""
    paths, digest = [], read_saved(run.path).digest
    for each in found:
        held = "" if each.norms == "free" else f"-norms-of-{each.norms}"
        paths.append(run.ablations / f"{_SET}{each.what}-{len(each.indices)}{held}.json")
        document = {"irm_sha256": digest, "recording": recording, "seed": seed, **each.to_dict()}
        write_text(paths[-1], json.dumps(document, indent=1) + "\n")
    return paths


def load_subsets(run: RunDirectory) -> list[dict[str, Any]]:
    """What was measured of sets of this run's indices, as `Subset.to_dict` gives it. Else as `load_ablations`."""
    found: list[dict[str, Any]] = []
    digest = read_saved(run.path).digest
    for path in _files(run):
        if not path.name.startswith(_SET):
            continue
        with _damage_told(path):
            document = read_json(path)
            _subset(document)
            found += [document] if document["irm_sha256"] == digest else []
    return found


def load_ablations(run: RunDirectory) -> list[dict[str, Any]]:
    """What was measured of this run's IRM, a flat record for each measure and kind of control.

    What was measured before the run was trained anew is left out. Raises RunError where a file is damaged.
    """
    found: list[dict[str, Any]] = []
    digest = read_saved(run.path).digest
    for path in _files(run):
        if path.name.startswith(_SET):
            continue
        with _damage_told(path):
            document = read_json(path)
            effects = [_measured(each) for each in document["effects"]]
            found += effects if document["irm_sha256"] == digest else []
    return found


def _files(run: RunDirectory) -> list[Path]:
    """Without what a killed writer left, or a Mac beside them: their names begin with a dot, which glob does not mind."""
    return sorted(path for path in run.ablations.glob("*.json") if not path.name.startswith("."))


@contextmanager
def _damage_told(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        said = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise RunError(f"{path} is damaged ({said})", "remove it, or ablate again") from None


def _subset(document: dict[str, Any]) -> None:
    """Raises as `_measured` where a document is not as `Subset.to_dict` makes it."""
    pairs = [each[key] for each in document["effects"] for key in ("effect_95", "control_95")]
    numbers = [document[key] for key in ("k", "power", "kept_effect", "samples")]
    numbers += [
        each[key] for each in document["effects"] for key in ("effect", "nothing", "control_median", "p", "rank", "controls")
    ]
    if not np.isfinite([*numbers, *(x for low, high in pairs for x in (low, high))]).all():
        raise ValueError("NaN or infinity")
    texts = [document["norms"], *(each[key] for each in document["effects"] for key in ("measure", "controls_kind"))]
    if not all(isinstance(each, str) for each in texts) or document["what"] not in ("keep", "drop"):
        raise TypeError("something that should be text is not")


def _measured(effect: dict[str, Any]) -> dict[str, Any]:
    """A record as `to_list` makes it. Raises KeyError, TypeError or ValueError where it is not."""
    texts = [effect[key] for key in ("where", "measure", "controls_kind", "matched_by")]
    whole = [effect[key] for key in ("index", "controls", "rank", "samples")]
    pairs = [effect[key] for key in ("effect_95", "control_95", "beyond_controls_95", "matched_magnitudes")]
    numbers = [
        *whole,
        *(effect[key] for key in ("effect", "control_median", "beyond_controls", "p", "magnitude")),
        *(x for low, high in pairs for x in (low, high)),
        *(effect[key] for key in _NUMBERS if key in effect),
        *(x for key in _PAIRS if key in effect for x in effect[key]),
    ]
    if not all(len(effect[key]) == 2 for key in _PAIRS if key in effect) or effect.get("norms", "free") not in _NORMS:
        raise ValueError("an interval or a way to hold norms that is none")
    if not all(isinstance(each, str) for each in texts) or not all(isinstance(each, int) for each in whole):
        raise TypeError("something that should be text or a count is not")
    if not np.isfinite(numbers).all():
        raise ValueError("NaN or infinity")
    return effect
