"""Runs on one base -> the document of the report: statistics of each run, of the base, and across the runs."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from irm_lite.analysis.ablation_files import load_ablations, load_subsets
from irm_lite.analysis.base_controls.controls import NEUTRAL, BaseControls
from irm_lite.analysis.base_controls.features import top_tokens
from irm_lite.analysis.recordings.recording import Phase
from irm_lite.analysis.recordings.run_recordings import RecordedRun, differences
from irm_lite.analysis.report.findings import findings
from irm_lite.analysis.statistics.checks import require_index_range, require_seed
from irm_lite.analysis.statistics.explanation import explain
from irm_lite.analysis.statistics.field_control import against_field
from irm_lite.analysis.statistics.prominence import prominent
from irm_lite.analysis.statistics.ranking import TwoRuns, common, compare_runs, importance
from irm_lite.analysis.statistics.striations import correlations, layer_normalised, striation_test, two_way
from irm_lite.analysis.statistics.tone import tone_effect
from irm_lite.base.load import Base
from irm_lite.core.errors import BaseModelError, InputError
from irm_lite.core.machine.give_way import giving_way
from irm_lite.core.private_text import without_folders
from irm_lite.core.timestamp import now
from irm_lite.core.types import DoubleArray, FloatArray, Progress, Reals
from irm_lite.core.version import __version__
from irm_lite.runs.directory import RunDirectory
from irm_lite.runs.trained import load_run

FORMAT = 2
TOP = 20  # indices that two runs' top lists are compared by
_LENS_LAYERS = 5
_PERMUTATIONS = 1000


@dataclass(frozen=True)
class Analysis:
    """`document` is report.json; `heatmaps` are the runs' mean outputs (L, H), by name."""

    document: dict[str, Any]
    heatmaps: dict[str, FloatArray]


@giving_way()
def analyze(
    runs: Sequence[RecordedRun],
    *,
    phase: Phase = "generated",
    marks: Sequence[int] = (),
    neutral: str = NEUTRAL,
    samples: int = 100,
    seed: int = 0,
    on_progress: Progress = lambda done, of, what: None,
) -> Analysis:
    """Statistics of the runs' mean outputs, each beside its null or control. `samples`: training answers for the base's
    own features and gradient fields. `neutral`: the data of the runs that others are held against as those without an
    emotion. Raises InputError where a mark is out of range, or the runs cannot be used."""
    width = runs[0].recording.about.hidden_size
    marks = list(dict.fromkeys(marks))
    require_index_range(marks, width)
    require_seed(seed)
    if samples < 2:
        raise InputError(f"--samples {samples} is too few", "give at least 2")
    importances = [_importance(each, phase) for each in runs]
    interventions = [_interventions(each) for each in runs]  # before the work: a file may be damaged
    first = load_run(runs[0].directory.path)
    controls = BaseControls(first, samples, on_progress)
    entries, heatmaps = [], {}
    for number, (each, of_run, changed) in enumerate(zip(runs, importances, interventions, strict=True)):
        entries.append(_describe(each, of_run, phase, controls, marks, seed) | changed)
        heatmaps[each.name] = each.phase(phase).mean.astype(np.float32)
        on_progress(number + 1, len(runs), "analysing the runs")
    document: dict[str, Any] = {
        "format": FORMAT,
        "created": now(),
        "irm_lite": __version__,
        "base": {"name": without_folders(first.config.model), **first.fingerprint.to_dict()},
        "notes": differences(runs),
        "runs": entries,
        "gradient_field": controls.described(),
    }
    try:
        document["gradient_split"] = controls.split(marks)
    except BaseModelError as error:  # its norms are others
        document["notes"].append(f"No split of the gradient: {error}.")
    if len(runs) > 1:
        named = [(each.name, each.tone, each.setting, each.is_of(neutral)) for each in runs]
        document["across"] = across(named, np.array(importances), min(TOP, width), seed)
    document["findings"] = findings(document)
    return Analysis(document, heatmaps)


def _importance(run: RecordedRun, phase: Phase) -> DoubleArray:
    try:
        return importance(run.phase(phase).mean_abs)
    except InputError as error:
        raise InputError(f"{run.name}: {error}") from None


def _interventions(run: RecordedRun) -> dict[str, Any]:
    return {"ablations": load_ablations(run.directory), "sets": load_subsets(run.directory)}


def _describe(
    run: RecordedRun, importances: DoubleArray, phase: Phase, controls: BaseControls, marks: Sequence[int], seed: int
) -> dict[str, Any]:
    config, about, mean = run.config, run.recording.about, run.phase(phase).mean
    order = np.argsort(-importances, kind="stable")
    ranks = {int(index): number for number, index in enumerate(order, 1)}
    described: dict[str, Any] = {
        "name": run.name,
        "data": run.tone,
        "kind": about.kind,
        "site": about.site,
        "layers": about.layers,
        "seed": config.seed,
        "nll": nlls(run.directory),
        "recording": run.folder.name,
        "prompts": about.n_prompts,
        "measured_in": about.measured_in,
        "weights": without_folders(about.weights),
        "tokens": {name: each.tokens for name, each in run.recording.statistics.items()},
        "phase": phase,
        "top": [_ranked(int(index), importances, ranks) for index in order[:10]],
        "marked": [_ranked(index, importances, ranks) for index in marks],
        "near_zero": run.phase(phase).near_zero.tolist(),
        "lens": _lens(controls.base, about.layers, mean),
    }
    if len(about.layers) > 1:  # of one layer nothing can be striated
        described |= _striation(run, mean, phase, controls, seed)
        described["prominent"] = prominent(mean, _PERMUTATIONS, seed=seed).to_dict()
        described["explanation"] = explain(importances, _features(run, phase, controls), seed=seed).to_dict()
    return described


def _striation(run: RecordedRun, mean: DoubleArray, phase: Phase, controls: BaseControls, seed: int) -> dict[str, Any]:
    """Against permutations, against the IRM that training started from, and against the base's gradient field."""
    normalised = layer_normalised(mean)
    field = controls.field_of(run)[run.recording.about.layers]
    found: dict[str, Any] = {
        "two_way": two_way(mean).to_dict(),
        "two_way_layer_normalised": two_way(normalised).to_dict(),
        "correlations": correlations(mean).to_dict(),
        "striation_test": striation_test(normalised, _PERMUTATIONS, seed).to_dict(),
        "field_prominent": prominent(field, _PERMUTATIONS, seed=seed).to_dict(),
    }
    learned = mean
    if phase in run.recording.untrained:
        before = run.recording.untrained[phase].mean
        learned = mean - before
        found["untrained"] = {
            "two_way": two_way(layer_normalised(before)).to_dict(),
            "correlations": correlations(before).to_dict(),
            "cosine": float((mean * before).sum() / (np.linalg.norm(mean) * np.linalg.norm(before))),
            "learned_two_way": two_way(layer_normalised(learned)).to_dict(),
        }
    found["field"] = against_field(learned, field, permutations=_PERMUTATIONS, seed=seed).to_dict()
    return found


def _features(run: RecordedRun, phase: Phase, controls: BaseControls) -> dict[str, Reals]:
    """What could foretell the importance without this run's training, each (H,); what says nothing new is left out."""
    about = run.recording.about
    features: dict[str, Reals] = {
        **controls.features(about.layers, about.site),
        "gradient for neutral answers": importance(np.abs(controls.neutral_field(about.site)[about.layers])),
    }
    if phase in run.recording.untrained:
        features["the untrained IRM"] = importance(run.recording.untrained[phase].mean_abs)
    found: dict[str, Reals] = {}
    for name, each in features.items():  # of gains that are all one, the head norm times the gain is the head norm again
        if np.ptp(each) > 0 and not any((each.argsort() == other.argsort()).all() for other in found.values()):
            found[name] = each
    return found


def _ranked(index: int, importances: DoubleArray, ranks: dict[int, int]) -> dict[str, Any]:
    return {"index": index, "importance": float(importances[index]), "rank": ranks[index]}


def _lens(base: Base, layers: Sequence[int], mean: DoubleArray) -> list[dict[str, Any]]:
    shown = np.unique(np.linspace(0, len(layers) - 1, _LENS_LAYERS).round().astype(int))
    return [
        {"layer": layers[row], **{way: [{"token": token, "score": score} for token, score in each] for way, each in tokens.items()}}
        for row, tokens in zip(shown, top_tokens(base, mean[shown].astype(np.float32)), strict=True)
    ]


def across(runs: Sequence[tuple[str, str, str, bool]], importances: DoubleArray, k: int, seed: int = 0) -> dict[str, Any]:
    """Importances (R, H) compared: the indices common to all runs and to each tone's, and what the tone changes.

    `runs` are names, tones, settings, and whether that tone is the neutral one.
    """
    names, tones, settings = ([str(each[part]) for each in runs] for part in range(3))
    emotional = [not neutral for *_, neutral in runs]
    pairs = compare_runs(importances, k)
    spearman = np.eye(len(runs))
    for pair in pairs:
        spearman[pair.runs] = spearman[pair.runs[::-1]] = pair.spearman
    groups = {tone: [n for n, each in enumerate(tones) if each == tone] for tone in dict.fromkeys(tones)}
    found: dict[str, Any] = {
        "names": names,
        "spearman": spearman.tolist(),
        "pairs": [pair.to_dict() for pair in pairs],
        "k": k,
        "agreement": _agreement(pairs, tones, settings),
        "common": common(importances, k).to_dict(),
        "common_by_data": {tone: common(importances[same], k).to_dict() for tone, same in groups.items() if len(same) > 1},
    }
    if any(a == b and x != y for (a, x), (b, y) in combinations(zip(settings, emotional, strict=True), 2)):
        found["tone"] = tone_effect(importances, emotional, settings, seed=seed).to_dict()
    return found


def _agreement(pairs: Sequence[TwoRuns], tones: Sequence[str], settings: Sequence[str]) -> dict[str, float]:
    """Median Spearman of two runs that share their tone alone, their setting alone, both, or neither."""
    kinds: dict[str, list[float]] = {}
    for pair in pairs:
        a, b = pair.runs
        same = {"tone": tones[a] == tones[b], "setting": settings[a] == settings[b]}
        kinds.setdefault(" and ".join(what for what, each in same.items() if each) or "neither", []).append(pair.spearman)
    return {kind: float(np.median(values)) for kind, values in kinds.items()}


def nlls(directory: RunDirectory) -> dict[str, float | None]:
    """Validation NLL of the base and the IRM's best, nats a token, from the run's events."""
    found: dict[str, float | None] = {"base": None, "irm": None}
    for event in directory.events.read():
        if event["kind"] == "eval" and isinstance(event.get("nll"), float) and event.get("of") in list(found):
            before = found[event["of"]]
            found[event["of"]] = event["nll"] if before is None else min(before, event["nll"])
    return found
