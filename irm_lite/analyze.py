"""Runs on one base -> the document of the report: statistics of each run, of the base, and across the runs."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import irm_lite
from irm_lite.analysis.base_features import base_features, stream_power, top_tokens
from irm_lite.analysis.gradient_field import gradient_field, shuffled
from irm_lite.analysis.recording import Phase, Recording, Statistics, load_recording, recording_name
from irm_lite.analysis.report.findings import findings
from irm_lite.analysis.statistics.checks import require_index_range, require_seed
from irm_lite.analysis.statistics.explanation import explain
from irm_lite.analysis.statistics.field_control import against_field
from irm_lite.analysis.statistics.prominence import prominent
from irm_lite.analysis.statistics.ranking import common, compare_runs, importance
from irm_lite.analysis.statistics.striations import correlations, cosines, layer_normalised, striation_test, two_way
from irm_lite.base_model import Base
from irm_lite.chat_format import Sample, encode_all
from irm_lite.config import TrainConfig
from irm_lite.dataset import load_dataset
from irm_lite.errors import InputError, RunError
from irm_lite.irm import Site, saved_shape
from irm_lite.run import RunDirectory, now
from irm_lite.trained import TrainedRun, load_run
from irm_lite.types import DoubleArray, FloatArray, Progress, Reals

FORMAT = 1
TOP = 20  # indices that two runs' top lists are compared by
_LENS_LAYERS = 5
_PERMUTATIONS = 1000


@dataclass(frozen=True)
class Analysis:
    """`document` is report.json; `heatmaps` are the runs' mean outputs (L, H), by name."""

    document: dict[str, Any]
    heatmaps: dict[str, FloatArray]


@dataclass(frozen=True)
class Recorded:
    """A run and the recording of it that is looked at. Its IRM is not loaded: 24 of the paper's would not fit."""

    directory: RunDirectory
    config: TrainConfig
    recording: Recording

    @property
    def name(self) -> str:
        return self.directory.name


def with_recordings(runs: Sequence[Path], recording: str | None = None) -> list[Recorded]:
    """Each run with its recording of that name, or its newest. Raises RunError where one has none, InputError where bases
    differ."""
    found = [_with_recording(RunDirectory(path), recording) for path in runs]
    first, *others = found
    for each in others:
        if each.directory.fingerprint().weights != first.directory.fingerprint().weights:
            raise InputError(
                f"{first.directory.path} and {each.directory.path} are of different bases", "analyze the runs of one base together"
            )
    paths = {each.name: each.directory.path for each in reversed(found)}
    for each in found:
        if each.directory.path is not paths[each.name]:
            same = each.directory.path.resolve() == paths[each.name].resolve()
            mend = "give it once" if same else "rename one of their folders"
            raise InputError(f"two runs have the same name, {each.name}", mend)
    return found


def _with_recording(run: RunDirectory, name: str | None) -> Recorded:
    config, shape = run.config(), saved_shape(run.path)
    folder = run.newest_recording() if name is None else run.recordings / recording_name(name)
    if folder is None:
        raise RunError(f"{run.path} has no recording", f"irm-lite record {run.path}")
    recording = load_recording(folder)
    about = recording.about
    same_irm = (tuple(about.layers), about.hidden_size) == shape and about.data == config.data
    if not same_irm or about.base.weights != run.fingerprint().weights:
        raise RunError(f"{folder} is a recording of another IRM", "record again with --force")
    return Recorded(run, config, recording)


def analyze(
    runs: Sequence[Recorded],
    *,
    phase: Phase = "generated",
    marks: Sequence[int] = (),
    samples: int = 100,
    seed: int = 0,
    on_progress: Progress = lambda done, of, what: None,
) -> Analysis:
    """Statistics of the runs' mean outputs, each beside its null or control. `samples`: training answers for the base's
    own features and gradient fields. Raises InputError where a mark is out of range, or the runs cannot be used."""
    width = runs[0].recording.about.hidden_size
    marks = list(dict.fromkeys(marks))
    require_index_range(marks, width)
    require_seed(seed)
    if samples < 2:
        raise InputError(f"--samples {samples} is too few", "give at least 2")
    phases = [_phase(each, phase) for each in runs]
    first = load_run(runs[0].directory.path)
    own = _OfTheBase(first, samples, on_progress)
    entries, heatmaps, ranks = [], {}, []
    for number, (each, statistics) in enumerate(zip(runs, phases, strict=True)):
        entries.append(_of_run(each, statistics, phase, own, marks, seed))
        heatmaps[each.name] = statistics.mean.astype(np.float32)
        ranks.append(importance(statistics.mean_abs))
        on_progress(number + 1, len(runs), "analysing the runs")
    document: dict[str, Any] = {
        "format": FORMAT,
        "created": now(),
        "irm_lite": irm_lite.__version__,
        "base": {"name": first.config.model, **first.fingerprint.to_dict()},
        "runs": entries,
        "gradient_field": own.described(),
    }
    if len(runs) > 1:
        document["across"] = _across(runs, np.array(ranks), min(TOP, width))
    document["findings"] = findings(document)
    return Analysis(document, heatmaps)


def _phase(recorded: Recorded, phase: Phase) -> Statistics:
    if phase not in recorded.recording.statistics:
        raise RunError(f"the recording of {recorded.name} has no {phase} tokens", "record again, or choose the other --phase")
    return recorded.recording.statistics[phase]


def _of_run(
    recorded: Recorded, statistics: Statistics, phase: Phase, own: "_OfTheBase", marks: Sequence[int], seed: int
) -> dict[str, Any]:
    config, about = recorded.config, recorded.recording.about
    mean, rank = statistics.mean, importance(statistics.mean_abs)
    order = np.argsort(-rank, kind="stable")
    place = {int(index): number for number, index in enumerate(order, 1)}
    described: dict[str, Any] = {
        "name": recorded.name,
        "data": config.data,
        "kind": about.kind,
        "site": about.site,
        "layers": about.layers,
        "seed": config.seed,
        "nll": nlls(recorded.directory),
        "measured_in": about.measured_in,
        "tokens": {name: each.tokens for name, each in recorded.recording.statistics.items()},
        "phase": phase,
        "top": [_ranked(int(index), rank, place) for index in order[:10]],
        "marked": [_ranked(index, rank, place) for index in marks],
        "near_zero": statistics.near_zero.tolist(),
        "lens": _lens(own.base, about.layers, mean),
        "ablations": ablations(recorded.directory),
    }
    if len(about.layers) > 1:  # of one layer nothing can be striated
        field = own.field(config.data, config.answer_column, about.site)[about.layers]
        features: dict[str, Reals] = {
            **own.features(about.layers, about.site),
            "gradient of the base": importance(np.abs(field)),
        }
        normalised = layer_normalised(mean)
        described |= {
            "two_way": two_way(mean).to_dict(),
            "two_way_layer_normalised": two_way(normalised).to_dict(),
            "correlations": correlations(mean).to_dict(),
            "striation_test": striation_test(normalised, _PERMUTATIONS, seed).to_dict(),
            "field": against_field(mean, field, permutations=_PERMUTATIONS, seed=seed).to_dict(),
            "prominent": prominent(mean, _PERMUTATIONS, seed=seed).to_dict(),
            "explanation": explain(rank, features, seed=seed).to_dict(),
        }
    return described


def _ranked(index: int, rank: DoubleArray, place: dict[int, int]) -> dict[str, Any]:
    return {"index": index, "importance": float(rank[index]), "rank": place[index]}


def _lens(base: Base, layers: list[int], mean: DoubleArray) -> list[dict[str, Any]]:
    rows = np.unique(np.linspace(0, len(layers) - 1, _LENS_LAYERS).round().astype(int))
    return [
        {"layer": layers[row], **{way: [{"token": token, "logit": logit} for token, logit in each] for way, each in tokens.items()}}
        for row, tokens in zip(rows, top_tokens(base, mean[rows].astype(np.float32)), strict=True)
    ]


def _across(runs: Sequence[Recorded], ranks: DoubleArray, k: int) -> dict[str, Any]:
    """Rankings compared, and the indices common to all runs, to each tone's, and to all runs but the neutral ones."""
    tones = [each.config.data for each in runs]
    pairs = compare_runs(ranks, k)
    spearman = np.eye(len(runs))
    for pair in pairs:
        spearman[pair.runs] = spearman[pair.runs[::-1]] = pair.spearman
    groups = {tone: [n for n, each in enumerate(tones) if each == tone] for tone in dict.fromkeys(tones)}
    groups["all but neutral"] = [n for n, each in enumerate(tones) if each != "neutral"] if "neutral" in tones else []
    return {
        "names": [each.name for each in runs],
        "spearman": spearman.tolist(),
        "pairs": [pair.to_dict() for pair in pairs],
        "k": k,
        "common": common(ranks).to_dict(),
        "common_by_data": {name: common(ranks[rows]).to_dict() for name, rows in groups.items() if len(rows) > 1},
    }


def nlls(directory: RunDirectory) -> dict[str, float | None]:
    """Validation NLL of the base and the IRM's best, nats a token, from the run's events."""
    found: dict[str, float | None] = {"base": None, "irm": None}
    for event in directory.events():
        if event["kind"] == "eval" and isinstance(event.get("nll"), float) and event.get("of") in list(found):
            before = found[event["of"]]
            found[event["of"]] = event["nll"] if before is None else min(before, event["nll"])
    return found


def ablations(directory: RunDirectory) -> list[dict[str, Any]]:
    """What `irm-lite ablate` has measured of this run, a flat record for each measure and kind of control."""
    found: list[dict[str, Any]] = []
    for path in sorted(directory.ablations.glob("*.json")):
        try:
            effects = json.loads(path.read_text(encoding="utf-8"))["effects"]
            found += [_measured(each) for each in effects]
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            said = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise RunError(f"{path} is damaged ({said})", "remove it, or ablate again") from None
    return found


def _measured(effect: dict[str, Any]) -> dict[str, Any]:
    """A record as `ablate` wrote it. Raises KeyError, TypeError or ValueError where it is not."""
    texts = [effect[key] for key in ("where", "measure", "controls_kind")]
    whole = [effect[key] for key in ("index", "controls", "rank")]
    pairs = [effect[key] for key in ("effect_95", "control_95", "beyond_controls_95")]
    numbers = [
        *whole,
        *(effect[key] for key in ("effect", "control_median", "beyond_controls", "p")),
        *(x for low, high in pairs for x in (low, high)),
    ]
    if not all(isinstance(each, str) for each in texts) or not all(isinstance(each, int) for each in whole):
        raise TypeError("what should be text or a count is none")
    if not np.isfinite(numbers).all():
        raise ValueError("NaN or infinity")
    return effect


class _OfTheBase:
    """What is computed of the untouched base, once for all runs that ask for it."""

    def __init__(self, run: TrainedRun, samples: int, on_progress: Progress) -> None:
        self.base, self._samples, self._progress = run.base, samples, on_progress
        self._max_length = run.config.max_length
        self._fields: dict[tuple[str, Site], FloatArray] = {}
        self._power: dict[Site, FloatArray] = {}

    def field(self, data: str, answer_column: str, site: Site) -> FloatArray:
        """The gradient field of these answers at every layer, (n_layers, H)."""
        if (data, site) not in self._fields:
            self._fields[data, site] = self._field(self._answers(data, answer_column), site, data)
        return self._fields[data, site]

    def features(self, layers: list[int], site: Site) -> dict[str, FloatArray]:
        if site not in self._power:
            self._power[site] = stream_power(self.base, self._answers("neutral"), site)
        return base_features(self.base, self._power[site], layers, site)

    def described(self) -> dict[str, Any]:
        """Striation of the gradient fields: of the runs' answers, of neutral ones, and of answers with their tokens shuffled."""
        sites: Iterable[Site] = sorted({site for _, site in self._fields})
        for site in sites:
            self.field("neutral", "answer", site)
            first = next(data for data, where in self._fields if where == site)
            self._fields[f"{first}, shuffled", site] = self._field(shuffled(self._answers(first)), site, "shuffled answers")
        return {
            f"{data} ({site})": {"cosines": cosines(field).to_dict(), "two_way": two_way(layer_normalised(field)).to_dict()}
            for (data, site), field in self._fields.items()
        }

    def _answers(self, data: str, answer_column: str = "answer") -> list[Sample]:
        examples = load_dataset(data, answer_column).train[: self._samples]
        return encode_all(self.base.tokenizer, examples, self._max_length)[0]

    def _field(self, samples: list[Sample], site: Site, what: str) -> FloatArray:
        def report(done: int, of: int, _what: str) -> None:
            self._progress(done, of, f"the base's gradient field, {what}")

        return gradient_field(self.base, samples, tuple(range(self.base.n_layers)), site, report)
