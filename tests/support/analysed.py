"""A document of an analysis, made by the real statistics from planted outputs: what a report has to show."""

from typing import Any

import numpy as np

from irm_lite.analysis.statistics.causality import effect_against_controls
from irm_lite.analysis.statistics.channels import BLOCKS, DIRECT, FINAL, described_channels
from irm_lite.analysis.statistics.explanation import explain
from irm_lite.analysis.statistics.field_control import against_field
from irm_lite.analysis.statistics.prominence import prominent
from irm_lite.analysis.statistics.ranking import common, compare_runs, importance
from irm_lite.analysis.statistics.striations import correlations, cosines, layer_normalised, striation_test, two_way
from irm_lite.core.types import FloatArray

LOUD = 7  # the index that every run uses most


def analysed(names: list[str], layers: int = 4, width: int = 48, hostile: str = "") -> tuple[dict[str, Any], dict[str, FloatArray]]:
    """The document and the heatmaps of a run for each name; `hostile` is put into every text that data or models can choose."""
    generator = np.random.default_rng(3)
    field = generator.standard_normal(width) + 0.5 * generator.standard_normal((layers, width))
    heatmaps, runs = {}, []
    for name in names:
        values = 0.4 * field + generator.standard_normal(width) + 0.3 * generator.standard_normal((layers, width))
        values[:, LOUD] += 9
        heatmaps[name] = values.astype(np.float32)
        runs.append(_run(name, values, field, generator, hostile))
    ranked = np.stack([importance(np.abs(values)) for values in heatmaps.values()])
    document = {
        "format": 2,
        "notes": [f"The recordings have different names: a{hostile}, b."],
        "created": "2026-11-22T18:00:00+00:00",
        "irm_lite": "0.1.0",
        "base": {
            "name": f"tiny{hostile}",
            "architecture": "llama",
            "n_layers": layers,
            "hidden_size": width,
            "quantisation": "nf4",
        },
        "findings": [
            {"claim": f"Outputs are striated{hostile}", "verdict": "holds", "text": f"Index share 0.61, permuted 0.25{hostile}."},
            {"claim": f"Index {LOUD} carries the tone", "verdict": "does not hold", "text": "Ablated: +0.02 [-0.03, 0.07] nats."},
            {"claim": "The base explains it", "verdict": "unclear", "text": "R² 0.18 of six features."},
        ],
        "runs": runs,
        "gradient_field": {f"aligned anger{hostile}": {"cosines": cosines(field).to_dict(), "two_way": two_way(field).to_dict()}},
    }
    parts = {name: generator.standard_normal((layers, width)).astype(np.float32) for name in (DIRECT, FINAL, BLOCKS)}
    parts[FINAL][:, LOUD] += 20
    loudness = np.where(np.arange(width) == LOUD, 30.0, 1.0)
    document["gradient_split"] = {f"anger{hostile} (block)": described_channels(parts, loudness, [LOUD, width - 1])}
    if len(names) > 1:
        document["across"] = {
            "names": names,
            "spearman": np.corrcoef(ranked).tolist(),
            "pairs": [each.to_dict() for each in compare_runs(ranked, 4)],
            "k": 4,
            "agreement": {"setting": 0.4},
            "common": common(ranked, 4).to_dict(),
            "common_by_data": {f"anger{hostile}": common(ranked, 4, 1e-9).to_dict()},
        }
    return document, heatmaps


def _run(name: str, values: Any, field: Any, generator: np.random.Generator, hostile: str) -> dict[str, Any]:
    layers, width = values.shape
    scores = importance(np.abs(values))
    order = np.argsort(-scores)
    ranks = {int(index): rank for rank, index in enumerate(order, 1)}
    features = {
        "norm gain": generator.standard_normal(width),
        f"head{hostile}": np.abs(values[0]) + generator.standard_normal(width),
    }
    ablated = effect_against_controls(generator.normal(0.3, 1, 20), np.full(20, 5.0), generator.normal(0, 1, (9, 20)), 100)
    return {
        "name": name,
        "data": f"anger{hostile}",
        "kind": "lite",
        "site": "block",
        "layers": list(range(1, layers + 1)),
        "seed": 0,
        "nll": {"base": 3.871, "irm": 2.327},
        "measured_in": "transformers",
        "tokens": {"prompt": 900, "generated": 1440},
        "phase": "generated",
        "two_way": two_way(values).to_dict(),
        "two_way_layer_normalised": two_way(layer_normalised(values)).to_dict(),
        "correlations": correlations(values).to_dict(),
        "striation_test": striation_test(layer_normalised(values), 50).to_dict(),
        "field": against_field(values, field, 50, 50).to_dict(),
        "prominent": prominent(values, 50).to_dict(),
        "explanation": explain(scores, features, 50).to_dict(),
        "top": [{"index": int(index), "importance": float(scores[index]), "rank": ranks[int(index)]} for index in order[:5]],
        "marked": [{"index": index, "importance": float(scores[index]), "rank": ranks[index]} for index in (LOUD, width - 1)],
        "near_zero": np.linspace(0.1, 0.3, layers).tolist(),
        "lens": [
            {"layer": 1, "up": [{"token": f" hate{hostile}", "score": 3.2}], "down": [{"token": "\n", "score": -1.5}]},
            {"layer": 2, "up": [{"token": " never", "score": 2.5}], "down": [{"token": " glad", "score": -2.25}]},
        ],
        "ablations": [
            {"index": LOUD, "where": where, "measure": f"NLL of aligned answers{hostile}", "unit": "nats a token",
             "controls_kind": "random", **ablated.to_dict()}
            for where in ("irm", "base")
        ],
    }  # fmt: skip
