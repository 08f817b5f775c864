"""The report of an analysis: one HTML page that needs nothing else, and its figures as JSON beside it."""

import base64
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from irm_lite.analysis.pictures.pooling import colour_limit
from irm_lite.analysis.report.sections import sections
from irm_lite.core.errors import InputError
from irm_lite.core.files.atomic import write_text
from irm_lite.core.types import FloatArray
from irm_lite.core.visible_text import visible

_HALF_MAX = float(np.finfo(np.float16).max)


def write_report(document: dict[str, Any], heatmaps: dict[str, FloatArray], folder: Path) -> Path:
    """Write folder/report.json, the document, and folder/report.html, and give the page's path.

    `heatmaps` are mean outputs (L, H) by the run's name; the page holds them as float16. What the document lacks is left
    out. All text of it is escaped, and the page's policy lets no script run but its own. Raises InputError where a heatmap
    cannot be drawn.
    """
    page = folder / "report.html"
    html = _render(document, _payload(document, heatmaps))
    write_text(folder / "report.json", json.dumps(document, indent=1, allow_nan=False) + "\n")
    write_text(page, html)
    return page


def _render(document: dict[str, Any], payload: list[dict[str, Any]]) -> str:
    from jinja2 import ChainableUndefined, Environment, PackageLoader
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("irm_lite.analysis.report"),
        autoescape=True,
        undefined=ChainableUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: visible(value) if type(value) is str else value,  # Markup is our own
    )
    script = environment.get_template("report.js").render()
    return environment.get_template("report.html").render(
        document=document,
        sections=sections(document),
        heatmaps=payload,
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def _payload(document: dict[str, Any], heatmaps: Mapping[str, FloatArray]) -> list[dict[str, Any]]:
    """What the page's script draws: for each heatmap its values, layers, marks and colour limit."""
    runs = {run["name"]: run for run in document.get("runs", [])}
    found = []
    for name, values in heatmaps.items():
        if values.ndim != 2 or values.size == 0 or not np.isfinite(values).all():
            raise InputError(f"the heatmap of {name} cannot be drawn", "give layers x indices, all finite")
        run = runs.get(name, {})
        layers = run.get("layers", range(len(values)))
        if len(layers) != len(values):
            raise InputError(f"the heatmap of {name} has {len(values)} layers, its run {len(layers)}", "give one row a layer")
        half = np.clip(values, -_HALF_MAX, _HALF_MAX).astype("<f2")
        found.append(
            {
                "name": visible(name),
                "about": _about(run),
                "layers": list(layers),
                "width": values.shape[1],
                "limit": colour_limit(half.astype(np.float32), robust=True),
                "marks": [each["index"] for each in run.get("marked", []) if each["index"] < values.shape[1]],
                "values": base64.b64encode(half.tobytes()).decode(),
            }
        )
    return found


def _about(run: Mapping[str, Any]) -> str:
    """A line about the run whose heatmap is shown."""
    parts = [
        f"{run['kind']} IRM" if "kind" in run else "",
        f"at {run['site']}" if "site" in run else "",
        f"on {run['data']}" if "data" in run else "",
        f"mean over the {run['phase']} tokens" if "phase" in run else "",
    ]
    return visible(", ".join(part for part in parts if part))
