"""A run's export/fidelity.json: what was measured of its vector and of its adapter, each written without losing the other's."""

import json
from typing import Any

from irm_lite.core.files.atomic import write_text
from irm_lite.core.files.reading import read_json
from irm_lite.runs.directory import RunDirectory

_LARGEST = 1 << 20  # bytes


def kept_figures(run: RunDirectory) -> dict[str, Any]:
    """What is there; empty where nothing is. Raises OSError or ValueError where it cannot be read."""
    found: dict[str, Any] = read_json(run.fidelity, _LARGEST) if run.fidelity.exists() else {}
    return found


def keep_figures(run: RunDirectory, figures: dict[str, Any]) -> None:
    """In the place of all that was there."""
    write_text(run.fidelity, json.dumps(figures, indent=2) + "\n")
