"""How much of an IRM is in a few indices? Keep only the K most important of its output, or drop them, against random sets of K."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from irm_lite.analysis.ablation import LEAST_CONTROLS, AblationSettings
from irm_lite.analysis.interventions.changed import weighted
from irm_lite.analysis.interventions.measured import Measured, measured_on, output_power
from irm_lite.analysis.statistics.causality import KL, MEASURES, AblationEffect, effect_against_controls
from irm_lite.analysis.statistics.ranking import importance
from irm_lite.core.errors import InputError
from irm_lite.core.machine.give_way import giving_way
from irm_lite.core.types import DoubleArray, IntArray, Progress, unwatched

if TYPE_CHECKING:
    from irm_lite.runs.trained import TrainedRun

What = Literal["keep", "drop"]
RANDOM, MATCHED_RMS = "random sets", "random sets brought to the same RMS"


@dataclass(frozen=True)
class Subset:
    """The K `indices` kept or dropped: the effects on each of MEASURES, by the kind of control, and those of adding nothing at all.

    `power`: the share of the output's mean square that these indices have, mean over layers. Of kept ones p is small where fewer
    random sets leave as little changed, of dropped ones where few change as much.
    """

    what: What
    indices: list[int]
    effects: dict[str, dict[str, AblationEffect]]
    nothing: dict[str, float]
    power: float
    samples: int
    norms: str

    @property
    def kept_effect(self) -> float:
        """The share of KL(IRM || base) that is still there, 1 - KL(IRM || what is left) / KL(IRM || base)."""
        return 1 - self.effects[RANDOM][KL].effect / self.nothing[KL] if self.nothing[KL] > 0 else 0.0

    def to_dict(self) -> dict[str, Any]:
        return {
            "what": self.what,
            "k": len(self.indices),
            "indices": self.indices,
            "power": self.power,
            "kept_effect": self.kept_effect,
            "samples": self.samples,
            "norms": self.norms,
            "unit": "nats a token",
            "effects": [
                {"measure": measure, "controls_kind": kind, "nothing": self.nothing[measure], **effect.to_dict()}
                for kind, effects in self.effects.items()
                for measure, effect in effects.items()
            ],
        }


@giving_way()
def keep_and_drop(
    run: "TrainedRun",
    sets: Sequence[tuple[What, int]],
    mean_abs: DoubleArray,
    settings: AblationSettings,
    *,
    on_progress: Progress = unwatched,
) -> list[Subset]:
    """Keep or drop the K most important indices of the IRM's output, and measure as `ablate` does.

    Controls are sets of K of the other indices: as they are, and with what is left of the output scaled, layer by layer, to the
    RMS that it has with the important ones kept or dropped. Raises InputError where K is not between 1 and half of the indices.
    """
    settings.check()
    if not settings.controls:
        raise InputError("sets have no matched indices to be held against", f"give at least {LEAST_CONTROLS} controls")
    width = run.irm.hidden_size
    for _, k in sets:
        if not 1 <= k <= width // 2:
            raise InputError(f"a set of {k} indices cannot be held against others", f"give 1 to {width // 2}")
    if settings.where != "irm":
        raise InputError("sets of indices are kept or dropped in the IRM's output", "leave --where base out")
    aligned, neutral = measured_on(run, settings.samples)
    order = np.argsort(-importance(mean_abs), kind="stable")
    generator, found, done = np.random.default_rng(settings.seed), [], 0
    total = 1 + len(sets) * (1 + 2 * settings.controls)
    with torch.no_grad():
        power = output_power(run, aligned)
        before = Measured(run, aligned, neutral, settings.norms)

        def measured(weights: Tensor) -> list[DoubleArray]:
            nonlocal done
            done += 1
            on_progress(done, total, "sets of indices")
            changes = before.changes(weighted(run, weights))
            if changes is None:
                raise InputError("without a part of the IRM's output the model puts out NaN", "train on --dtype float32")
            return changes.sums

        nothing = measured(torch.zeros_like(power))
        for what, k in sets:
            chosen, others = order[:k], order[k:]
            drawn = [generator.choice(others, k, replace=False) for _ in range(settings.controls)]
            own = _weights(power, chosen, what)
            sums = measured(own)
            of_controls = {RANDOM: [_weights(power, each, what) for each in drawn]}
            of_controls[MATCHED_RMS] = [_at_rms_of(power, weights, own) for weights in of_controls[RANDOM]]
            effects = {}
            for kind, several in of_controls.items():
                changed = [measured(weights) for weights in several]
                effects[kind] = {
                    measure: _effect(what, sums[n], before.sizes[n], np.stack([each[n] for each in changed]), settings.seed)
                    for n, measure in enumerate(MEASURES)
                }
            without = {measure: float(nothing[n].sum() / before.sizes[n].sum()) for n, measure in enumerate(MEASURES)}
            share = float((power[:, chosen].sum(1) / power.sum(1).clamp_min(1e-30)).mean())
            found.append(Subset(what, chosen.tolist(), effects, without, share, len(aligned), settings.norms))
    return found


def _weights(power: Tensor, indices: IntArray, what: What) -> Tensor:
    """(L, H): 1 where the output stays, 0 elsewhere."""
    weights = torch.zeros_like(power) if what == "keep" else torch.ones_like(power)
    weights[:, indices] = 1 if what == "keep" else 0
    return weights


def _at_rms_of(power: Tensor, weights: Tensor, other: Tensor) -> Tensor:
    """The weights scaled so that in each layer the output has the mean square that it has under the other's."""
    own, wanted = ((power * each.square()).sum(1) for each in (weights, other))
    return weights * torch.where(own > 0, wanted / own.clamp_min(1e-300), torch.ones_like(own)).sqrt()[:, None]


def _effect(what: What, own: DoubleArray, sizes: DoubleArray, controls: DoubleArray, seed: int) -> AblationEffect:
    """With the rank from the other end where indices are kept: 1 where no random set leaves so little changed."""
    found = effect_against_controls(own, sizes, controls, seed=seed)
    if what == "drop":
        return found
    rank = 1 + int((np.abs(controls.sum(1) / sizes.sum()) <= abs(found.effect)).sum())
    return replace(found, rank=rank, p=rank / (1 + found.controls))
