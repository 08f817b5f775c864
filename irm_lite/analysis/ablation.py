"""Does an index matter? Zero it, in the IRM's output or in the base's residual stream, and measure; then zero others."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from irm_lite.analysis.base_controls.features import stream_power
from irm_lite.analysis.statistics.causality import MEASURES, AblationEffect, effect_against_controls
from irm_lite.analysis.statistics.checks import require_index_range, require_seed
from irm_lite.analysis.statistics.ranking import importance
from irm_lite.base.architecture import decoder_layers, hidden_state, with_hidden_state
from irm_lite.core.errors import DataError, InputError, RunError
from irm_lite.core.files.atomic import write_text
from irm_lite.core.files.reading import read_json
from irm_lite.core.types import DoubleArray, Progress
from irm_lite.data.encoding import Sample
from irm_lite.data.packing import pack, rows
from irm_lite.runs.directory import RunDirectory
from irm_lite.runs.trained import neutral_samples
from irm_lite.steering.injection import inject
from irm_lite.steering.irm_files import read_saved
from irm_lite.steering.likelihood import kl, log_probabilities

if TYPE_CHECKING:
    from irm_lite.runs.trained import TrainedRun

Where = Literal["irm", "base"]
LEAST_CONTROLS = 100
MATCHED = 30  # the least p is 1 / 31
_ROW_TOKENS = 2048  # 4-bit weights are unpacked once a row


@dataclass(frozen=True)
class Ablation:
    """One index at one place: the effects on each of MEASURES, against random and against matched indices.

    `magnitude` is what they are matched by, importance by mean |output| or by the stream's RMS: 1 is an average index.
    """

    index: int
    where: Where
    random: dict[str, AblationEffect]
    matched: dict[str, AblationEffect]
    random_indices: list[int]
    matched_indices: list[int]
    magnitude: float
    matched_magnitudes: tuple[float, float]  # the least and the largest
    samples: int

    @property
    def matched_by(self) -> str:
        return "mean |output|" if self.where == "irm" else "RMS of the residual stream"

    def to_list(self) -> list[dict[str, Any]]:
        """A flat record for each measure and kind of control."""
        return [
            {
                "index": self.index,
                "where": self.where,
                "measure": measure,
                "unit": "nats a token",
                "controls_kind": kind,
                "matched_by": self.matched_by,
                "magnitude": self.magnitude,
                "matched_magnitudes": list(self.matched_magnitudes),
                "samples": self.samples,
                **effect.to_dict(),
            }
            for kind, effects in (("random", self.random), ("matched", self.matched))
            for measure, effect in effects.items()
        ]


def ablate(
    run: "TrainedRun",
    indices: Sequence[int],
    mean_abs: DoubleArray,
    *,
    where: Where = "irm",
    controls: int = LEAST_CONTROLS,
    samples: int = 12,
    seed: int = 0,
    on_progress: Progress = lambda done, of, what: None,
) -> list[Ablation]:
    """Zero each index at all injected layers at once and measure what changes on held-out answers, in nats a token.

    `where` is "irm": in what the IRM adds; "base": in the residual stream that comes out of those blocks, the IRM being on.
    The measures are the change of the NLL of the run's own held-out answers, that of the neutral answers, and the
    KL(IRM || IRM with the ablation) on the run's own. Controls are `controls` random indices (all others, if there are
    fewer), and the MATCHED ones nearest in the magnitude of what is zeroed: `mean_abs` (L, H), the recorded mean |output|,
    or the RMS of the steered stream, so that an outlier channel is held against outliers. Of an index at the very top all
    of those are smaller. Raises InputError where an index is out of range.
    """
    indices = list(dict.fromkeys(indices))
    require_index_range(indices, run.irm.hidden_size)
    require_seed(seed)
    others = np.setdiff1d(np.arange(run.irm.hidden_size), indices)
    if controls < LEAST_CONTROLS:
        raise InputError(f"{controls} control indices are too few", f"give at least {LEAST_CONTROLS}")
    if samples < 2:
        raise InputError(f"{samples} samples are too few", "give at least 2")
    aligned, neutral = run.held_out[:samples], neutral_samples(run)[:samples]
    if len(aligned) < 2 or len(neutral) < 2:
        raise DataError("there are fewer than 2 held-out samples", "give a larger dataset")
    rank = importance(mean_abs if where == "irm" else _stream_rms(run, aligned))
    drawn = np.random.default_rng(seed).choice(others, min(controls, len(others)), replace=False).tolist()
    matched = {index: others[np.argsort(np.abs(rank[others] - rank[index]), kind="stable")[:MATCHED]].tolist() for index in indices}
    wanted = list(dict.fromkeys([*indices, *drawn, *(each for near in matched.values() for each in near)]))
    with torch.no_grad():
        before = _Before(run, aligned, neutral)
        changes = {}
        for done, index in enumerate(wanted, 1):
            changes[index] = before.changes(index, where)
            on_progress(done, len(wanted), f"ablating in the {where}")
    found = []
    for index in indices:
        effects = {}
        for kind, chosen in (("random", drawn), ("matched", matched[index])):
            effects[kind] = {
                measure: effect_against_controls(
                    changes[index][number], before.sizes[number], np.stack([changes[each][number] for each in chosen]), seed=seed
                )
                for number, measure in enumerate(MEASURES)
            }
        found.append(
            Ablation(
                index,
                where,
                effects["random"],
                effects["matched"],
                drawn,
                matched[index],
                float(rank[index]),
                (float(rank[matched[index]].min()), float(rank[matched[index]].max())),
                len(aligned),
            )
        )
    return found


def _stream_rms(run: "TrainedRun", samples: Sequence[Sample]) -> DoubleArray:
    """Of the steered stream that comes out of the injected blocks, (L, H)."""
    with inject(run.base.model, run.irm):
        rms: DoubleArray = np.sqrt(stream_power(run.base, samples, "block")[list(run.irm.layers)].astype(np.float64))
    return rms


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
        raise TypeError("what should be text or a count is none")
    if not np.isfinite(numbers).all():
        raise ValueError("NaN or infinity")
    return effect


class _Before:
    """The injected model as it is, on the samples; `changes` measures it again."""

    def __init__(self, run: "TrainedRun", aligned: list[Sample], neutral: list[Sample]) -> None:
        self._run = run
        groups = [*rows(aligned, _ROW_TOKENS), *rows(neutral, _ROW_TOKENS)]
        self._rows = [(pack(group), [each.n_answer for each in group]) for group in groups]
        with inject(run.base.model, run.irm):
            self._log_probs = [log_probabilities(run.base, row, None).cpu() for row, _ in self._rows]
        of_aligned, of_neutral = (np.array([float(each.n_answer) for each in part]) for part in (aligned, neutral))
        self.sizes = [of_aligned, of_neutral, of_aligned]  # of each of MEASURES

    def changes(self, index: int, where: Where) -> list[DoubleArray]:
        """For each of MEASURES the sums over each sample, (N,), with the index zeroed."""
        nlls: list[float] = []
        divergences: list[float] = []
        run, n = self._run, len(self.sizes[0])
        with inject(run.base.model, run.irm), zeroed(run, index, where):  # in this order: the IRM's own part is zeroed too
            for (row, sizes), then in zip(self._rows, self._log_probs, strict=True):
                now, labels = log_probabilities(run.base, row, None).cpu(), row["labels"]
                change = F.nll_loss(now, labels, reduction="none") - F.nll_loss(then, labels, reduction="none")
                nlls += [float(each.sum()) for each in torch.split(change, sizes)]
                divergences += [float(each.sum()) for each in torch.split(kl(then, now), sizes)]
        return [np.array(nlls[:n]), np.array(nlls[n:]), np.array(divergences[:n])]


@contextmanager
def zeroed(run: "TrainedRun", index: int, where: Where) -> Iterator[None]:
    """Inside, the index is zero in what the IRM gives, or in what comes out of the injected blocks."""
    if where == "irm":
        original = run.irm.layer_output

        def without(code: Tensor, layer: int) -> Tensor:
            vector = original(code, layer).clone()
            vector[..., index] = 0
            return vector

        run.irm.layer_output = without  # type: ignore[method-assign,assignment]
        try:
            yield
        finally:
            del run.irm.layer_output
        return
    blocks: Any = decoder_layers(run.base.model)

    def silence(_module: object, _args: object, output: object) -> object:
        stream = hidden_state(output).clone()
        stream[..., index] = 0
        return with_hidden_state(output, stream)

    handles = [blocks[layer].register_forward_hook(silence) for layer in run.irm.layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
