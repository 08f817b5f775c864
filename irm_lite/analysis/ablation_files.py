"""RUN/ablations: a JSON file for each index and place, written by `ablate` and read into the report."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from irm_lite.analysis.ablation import Ablation
from irm_lite.core.errors import RunError
from irm_lite.core.files.atomic import write_text
from irm_lite.core.files.reading import read_json
from irm_lite.runs.directory import RunDirectory
from irm_lite.steering.irm_files import read_saved


def save_ablations(found: Sequence[Ablation], run: RunDirectory, recording: str, seed: int) -> list[Path]:
    """A file for each index and place in RUN/ablations, in the place of an earlier one."""
    paths, digest = [], read_saved(run.path).digest
    for each in found:
        paths.append(run.ablations / f"{each.index}-{each.where}.json")
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


def load_ablations(run: RunDirectory) -> list[dict[str, Any]]:
    """What was measured of this run's IRM, a flat record for each measure and kind of control.

    What was measured before the run was trained anew is left out. Raises RunError where a file is damaged.
    """
    found: list[dict[str, Any]] = []
    digest = read_saved(run.path).digest
    for path in sorted(run.ablations.glob("*.json")):
        try:
            document = read_json(path)
            effects = [_measured(each) for each in document["effects"]]
            found += effects if document["irm_sha256"] == digest else []
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            said = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise RunError(f"{path} is damaged ({said})", "remove it, or ablate again") from None
    return found


def _measured(effect: dict[str, Any]) -> dict[str, Any]:
    """A record as `to_list` makes it. Raises KeyError, TypeError or ValueError where it is not."""
    texts = [effect[key] for key in ("where", "measure", "controls_kind", "matched_by")]
    whole = [effect[key] for key in ("index", "controls", "rank", "samples")]
    pairs = [effect[key] for key in ("effect_95", "control_95", "beyond_controls_95", "matched_magnitudes")]
    numbers = [
        *whole,
        *(effect[key] for key in ("effect", "control_median", "beyond_controls", "p", "magnitude")),
        *(x for low, high in pairs for x in (low, high)),
    ]
    if not all(isinstance(each, str) for each in texts) or not all(isinstance(each, int) for each in whole):
        raise TypeError("something that should be text or a count is not")
    if not np.isfinite(numbers).all():
        raise ValueError("NaN or infinity")
    return effect
