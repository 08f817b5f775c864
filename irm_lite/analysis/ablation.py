"""Does an index matter? Zero it, in the IRM's output or in the base's residual stream, and measure; then zero others."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from irm_lite.analysis.base_controls.features import stream_power
from irm_lite.analysis.interventions.changed import Where, zeroed
from irm_lite.analysis.interventions.measured import Held, Measured, measured_on
from irm_lite.analysis.interventions.zeroings import Zeroings
from irm_lite.analysis.statistics.causality import KL, MEASURES, AblationEffect, effect_against_controls
from irm_lite.analysis.statistics.checks import require_index_range, require_seed
from irm_lite.analysis.statistics.ranking import importance
from irm_lite.analysis.statistics.sharpness_share import SharpnessShare, sharpness_share
from irm_lite.core.bootstrap import Interval, interval, resampled_sums
from irm_lite.core.errors import InputError
from irm_lite.core.machine.give_way import giving_way
from irm_lite.core.types import DoubleArray, IntArray, Progress
from irm_lite.data.encoding import Sample
from irm_lite.steering.injection import inject

if TYPE_CHECKING:
    from irm_lite.runs.trained import TrainedRun

LEAST_CONTROLS = 100
MATCHED = 30  # the least p is 1 / 31


@dataclass(frozen=True)
class Ablation:
    """One index at one place: the effects on each of MEASURES, against random (none, if not asked for) and matched indices.

    `magnitude` is what they are matched by, importance by mean |output| or by the stream's RMS: 1 is an average index.
    `sharpness`: how far temperatures explain the KL, against the matched ones. `norms`: what their denominators were held at;
    then `through_norms` is, for each measure, the effect with free norms less this one, with its 95% interval.
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
    sharpness: SharpnessShare
    norms: Held = "free"
    through_norms: dict[str, tuple[float, Interval]] = field(default_factory=dict)

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
                "norms": self.norms,
                **effect.to_dict(),
                **self._beyond(measure, kind),
            }
            for kind, effects in (("random", self.random), ("matched", self.matched))
            for measure, effect in effects.items()
        ]

    def _beyond(self, measure: str, kind: str) -> dict[str, Any]:
        """What is known of a measure beside its effect: what of it goes through norms, and, of the KL, through sharpness."""
        found: dict[str, Any] = {}
        if measure in self.through_norms:
            found["through_norms"], found["through_norms_95"] = self.through_norms[measure]
        if measure == KL and kind == "matched":
            found |= self.sharpness.to_dict()
        return found


@dataclass(frozen=True)
class AblationSettings:
    """`where` is "irm": in what the IRM adds; "base": in the residual stream that comes out of the injected blocks, the IRM
    being on. `controls` random indices (all others, if there are fewer; 0: none), `matched` ones of like magnitude, `samples`
    held-out answers, the seed of chance. `norms`: "steered" or "base" to hold the denominators of the stream's norms at what they
    are in that model, before and after alike."""

    where: Where = "irm"
    controls: int = LEAST_CONTROLS
    samples: int = 12
    seed: int = 0
    norms: Held = "free"
    matched: int = MATCHED

    def check(self) -> None:
        """Raise InputError where one of them is too small."""
        require_seed(self.seed)
        if self.controls and self.controls < LEAST_CONTROLS:
            hint = f"give at least {LEAST_CONTROLS}, or 0 for the matched ones alone"
            raise InputError(f"{self.controls} control indices are too few", hint)
        if self.matched < 2:
            raise InputError(f"{self.matched} matched indices are too few", "give at least 2; the least p is one over one more")
        if self.samples < 2:
            raise InputError(f"{self.samples} samples are too few", "give at least 2")


def require_ablatable(indices: Sequence[int], hidden_size: int) -> None:
    """Raise InputError where one is out of range, or they leave fewer than two others to be held against."""
    require_index_range(indices, hidden_size)
    if hidden_size - len(set(indices)) < 2:
        raise InputError(f"{len(set(indices))} of {hidden_size} indices leave none to be held against", "zero fewer at once")


@giving_way()
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
    KL(IRM || IRM with the ablation) on the run's own. Controls are random indices, and the matched ones, nearest in the
    magnitude of what is zeroed: `mean_abs` (L, H), the recorded mean |output|, or the RMS of the steered stream, so that an
    outlier channel is held against outliers. Of an index at the very top all of those are smaller. Raises InputError where
    an index is out of range, DataError where there are too few held-out samples, BaseModelError where norms cannot be held.
    """
    settings = settings or AblationSettings()
    indices = list(dict.fromkeys(indices))
    require_ablatable(indices, run.irm.hidden_size)
    settings.check()
    where = settings.where
    aligned, neutral = measured_on(run, settings.samples)
    magnitude = importance(mean_abs if where == "irm" else _stream_rms(run, aligned))  # (H,)
    others = np.setdiff1d(np.arange(run.irm.hidden_size), indices)
    drawn = np.random.default_rng(settings.seed).choice(others, min(settings.controls, len(others)), replace=False).tolist()
    nearest = {index: _nearest_first(magnitude, index, others) for index in indices}
    total = len({*indices, *drawn, *(each for order in nearest.values() for each in order[: settings.matched])})
    with torch.no_grad():
        before = Measured(run, aligned, neutral, settings.norms)

        def tell(so_far: Zeroings) -> None:
            broken = len(so_far.broken)
            on_progress(len(so_far.changes) + broken, total + broken, f"ablating in the {where}")

        zeroings = Zeroings(run, where, before, tell)
        for index in indices:
            if not zeroings.measure(index, True):
                raise _broken(index, settings.norms)
        matched = {index: zeroings.matched(index, order, settings.matched) for index, order in nearest.items()}
        for index in drawn:  # last: those that are matched ones too have temperatures by now
            zeroings.measure(index, False)
        free = None if settings.norms == "free" else Measured(run, aligned, neutral)
        through = {} if free is None else _through_norms(run, indices, zeroings, free, settings)
    return [
        Ablation(
            index,
            where,
            random=_effects(zeroings, index, drawn, before.sizes, settings.seed),
            matched=_effects(zeroings, index, near, before.sizes, settings.seed),
            random_indices=drawn,
            matched_indices=near,
            magnitude=float(magnitude[index]),
            matched_magnitudes=(float(magnitude[near].min()), float(magnitude[near].max())),
            samples=len(aligned),
            sharpness=_sharpness(zeroings, index, near, settings.seed),
            norms=settings.norms,
            through_norms=through.get(index, {}),
        )
        for index, near in matched.items()
    ]


def _effects(
    zeroings: Zeroings, index: int, controls: Sequence[int], sizes: Sequence[DoubleArray], seed: int
) -> dict[str, AblationEffect]:
    """On each of MEASURES, against these controls; none, where none was left."""
    sound = zeroings.sound(controls)
    return {
        measure: effect_against_controls(
            zeroings.changes[index].sums[k],
            sizes[k],
            np.stack([zeroings.changes[each].sums[k] for each in sound]),
            seed=seed,
            broken=len(controls) - len(sound),
        )
        for k, measure in enumerate(MEASURES)
        if len(sound) > 1
    }


def _broken(index: int, norms: Held) -> InputError:
    """A model without this index puts out NaN."""
    if norms == "free":
        return InputError(f"with index {index} zeroed the model puts out NaN", "choose another index, or train on --dtype float32")
    why = "no denominator bounds the stream, which grows past what a number holds"
    return InputError(f"with index {index} zeroed and norms held the model puts out NaN: {why}", "leave out --hold-norms")


def _sharpness(zeroings: Zeroings, index: int, near: Sequence[int], seed: int) -> SharpnessShare:
    sound = zeroings.sound(near)
    own, *controls = (zeroings.changes[each].sharpened for each in (index, *sound))  # (N, 2) each
    return sharpness_share(np.asarray(own), np.stack([np.asarray(each) for each in controls]), seed, len(near) - len(sound))


def _through_norms(
    run: "TrainedRun", indices: Sequence[int], held: Zeroings, free: Measured, settings: AblationSettings
) -> dict[int, dict[str, tuple[float, Interval]]]:
    """For each index and measure the effect with free norms less that with held ones, nats a token, and its interval over answers.
    Raises InputError where with free norms the model puts out NaN."""
    found: dict[int, dict[str, tuple[float, Interval]]] = {}
    for index in indices:
        changes = free.changes(zeroed(run, index, settings.where))
        if changes is None:
            raise _broken(index, "free")
        found[index] = {}
        for k, measure in enumerate(MEASURES):
            more = changes.sums[k] - held.changes[index].sums[k]
            tokens, drawn = resampled_sums(np.stack([free.sizes[k], more], axis=1), settings.seed).T
            found[index][measure] = float(more.sum() / free.sizes[k].sum()), interval(drawn / tokens)
    return found


def _nearest_first(magnitude: DoubleArray, index: int, others: IntArray) -> list[int]:
    """`others` by how near their magnitude is to the index's."""
    order: list[int] = others[np.argsort(np.abs(magnitude[others] - magnitude[index]), kind="stable")].tolist()
    return order


def _stream_rms(run: "TrainedRun", samples: Sequence[Sample]) -> DoubleArray:
    """Of the steered stream that comes out of the injected blocks, (L, H)."""
    with inject(run.base.model, run.irm):
        rms: DoubleArray = np.sqrt(stream_power(run.base, samples, "block")[list(run.irm.layers)].astype(np.float64))
    return rms
