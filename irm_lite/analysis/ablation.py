"""Does an index matter? Zero it, in the IRM's output or in the base's residual stream, and measure; then zero others."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
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
from irm_lite.core.errors import DataError, InputError
from irm_lite.core.types import DoubleArray, IntArray, Progress
from irm_lite.data.encoding import Sample
from irm_lite.data.packing import pack, rows
from irm_lite.runs.trained import neutral_samples
from irm_lite.steering.injection import inject
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


@dataclass(frozen=True)
class AblationSettings:
    """`where` is "irm": in what the IRM adds; "base": in the residual stream that comes out of the injected blocks, the IRM
    being on. `controls` random indices (all others, if there are fewer), `samples` held-out answers, the seed of chance."""

    where: Where = "irm"
    controls: int = LEAST_CONTROLS
    samples: int = 12
    seed: int = 0

    def check(self) -> None:
        """Raise InputError where one of them is too small."""
        require_seed(self.seed)
        if self.controls < LEAST_CONTROLS:
            raise InputError(f"{self.controls} control indices are too few", f"give at least {LEAST_CONTROLS}")
        if self.samples < 2:
            raise InputError(f"{self.samples} samples are too few", "give at least 2")


def ablate(
    run: "TrainedRun",
    indices: Sequence[int],
    mean_abs: DoubleArray,
    settings: AblationSettings | None = None,
    *,
    on_progress: Progress = lambda done, of, what: None,
) -> list[Ablation]:
    """Zero each index at all injected layers at once and measure what changes on held-out answers, in nats a token.

    The measures are the change of the NLL of the run's own held-out answers, that of the neutral answers, and the
    KL(IRM || IRM with the ablation) on the run's own. Controls are random indices, and the MATCHED ones nearest in the
    magnitude of what is zeroed: `mean_abs` (L, H), the recorded mean |output|, or the RMS of the steered stream, so that an
    outlier channel is held against outliers. Of an index at the very top all of those are smaller. Raises InputError where
    an index is out of range, DataError where there are too few held-out samples.
    """
    settings = settings or AblationSettings()
    indices = list(dict.fromkeys(indices))
    require_index_range(indices, run.irm.hidden_size)
    settings.check()
    where, n = settings.where, settings.samples
    aligned, neutral = run.held_out[:n], neutral_samples(run)[:n]
    if len(aligned) < 2 or len(neutral) < 2:
        raise DataError("there are fewer than 2 held-out samples", "give a larger dataset")
    magnitude = importance(mean_abs if where == "irm" else _stream_rms(run, aligned))  # (H,)
    others = np.setdiff1d(np.arange(run.irm.hidden_size), indices)
    drawn = np.random.default_rng(settings.seed).choice(others, min(settings.controls, len(others)), replace=False).tolist()
    matched = {index: _nearest(magnitude, index, others) for index in indices}
    wanted = list(dict.fromkeys([*indices, *drawn, *(each for near in matched.values() for each in near)]))
    with torch.no_grad():
        before = _Before(run, aligned, neutral)
        changes = {}
        for done, index in enumerate(wanted, 1):
            changes[index] = before.changes(index, where)
            on_progress(done, len(wanted), f"ablating in the {where}")

    def effects(index: int, controls: Sequence[int]) -> dict[str, AblationEffect]:
        """On each of MEASURES, against these controls."""
        return {
            measure: effect_against_controls(
                changes[index][k], before.sizes[k], np.stack([changes[each][k] for each in controls]), seed=settings.seed
            )
            for k, measure in enumerate(MEASURES)
        }

    return [
        Ablation(
            index,
            where,
            random=effects(index, drawn),
            matched=effects(index, near),
            random_indices=drawn,
            matched_indices=near,
            magnitude=float(magnitude[index]),
            matched_magnitudes=(float(magnitude[near].min()), float(magnitude[near].max())),
            samples=len(aligned),
        )
        for index, near in matched.items()
    ]


def _nearest(magnitude: DoubleArray, index: int, others: IntArray) -> list[int]:
    """The MATCHED ones of `others` whose magnitude is nearest to the index's."""
    distance = np.abs(magnitude[others] - magnitude[index])
    nearest: list[int] = others[np.argsort(distance, kind="stable")[:MATCHED]].tolist()
    return nearest


def _stream_rms(run: "TrainedRun", samples: Sequence[Sample]) -> DoubleArray:
    """Of the steered stream that comes out of the injected blocks, (L, H)."""
    with inject(run.base.model, run.irm):
        rms: DoubleArray = np.sqrt(stream_power(run.base, samples, "block")[list(run.irm.layers)].astype(np.float64))
    return rms


class _Before:
    """The injected model as it is, on the samples; `changes` measures it again."""

    def __init__(self, run: "TrainedRun", aligned: list[Sample], neutral: list[Sample]) -> None:
        self._run = run
        groups = [*rows(aligned, _ROW_TOKENS), *rows(neutral, _ROW_TOKENS)]
        self._packed = [(pack(group), [each.n_answer for each in group]) for group in groups]
        with inject(run.base.model, run.irm):
            self._log_probs = [log_probabilities(run.base, row, None).cpu() for row, _ in self._packed]
        of_aligned, of_neutral = (np.array([float(each.n_answer) for each in part]) for part in (aligned, neutral))
        self.sizes = [of_aligned, of_neutral, of_aligned]  # of each of MEASURES

    def changes(self, index: int, where: Where) -> list[DoubleArray]:
        """For each of MEASURES the sums over each sample, (N,), with the index zeroed."""
        nlls: list[float] = []
        divergences: list[float] = []
        run, n = self._run, len(self.sizes[0])
        with inject(run.base.model, run.irm), zeroed(run, index, where):  # in this order: the IRM's own part is zeroed too
            for (row, sizes), then in zip(self._packed, self._log_probs, strict=True):
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
