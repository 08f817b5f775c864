"""Does ablating an index do more than ablating others? Its effect against that of control indices, on the same samples."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from irm_lite.analysis.statistics.checks import require_positive
from irm_lite.core.bootstrap import RESAMPLES, Interval, interval, resampled_sums
from irm_lite.core.errors import InputError
from irm_lite.core.types import DoubleArray, Reals

KL = "KL on aligned answers"
MEASURES = ("NLL of aligned answers", "NLL of neutral answers", KL)  # that an ablation changes


@dataclass(frozen=True)
class AblationEffect:
    """In the effects' unit a token, with 95% bootstrap intervals over samples. `rank` is by magnitude: 1 where no control
    reaches the effect. `beyond_controls` is the effect less the controls' mean. `broken`: those of the controls that left no
    number to measure; they count as larger."""

    effect: float
    effect_95: Interval
    control_median: float
    control_95: Interval  # 2.5th and 97.5th percentile of the controls
    controls: int
    rank: int
    p: float
    beyond_controls: float
    beyond_controls_95: Interval
    broken: int = 0

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def effect_against_controls(
    effects: Reals, sizes: Reals, control_effects: Reals, bootstraps: int = RESAMPLES, seed: int = 0, broken: int = 0
) -> AblationEffect:
    """Hold one index's effect against those of C control indices.

    `effects` (N,) are sums of a change over each of N samples, such as that of the NLL in nats over its answer tokens;
    `sizes` (N,) its answer tokens; `control_effects` (C, N) the same sums for the controls. Means are over tokens.
    p = (1 + number of controls whose |effect| reaches this one's) / (1 + C): two-sided, exact where the index could as
    well have been one of the controls, so not where it was chosen by its effect on these samples. `broken` more controls have
    no effect that is a number: they count as larger, in C too, and in nothing else. The intervals are over
    samples with the controls as they are; they do not know which controls were drawn. Raises InputError where the
    arrays cannot be used.
    """
    require_positive(bootstraps, "bootstraps")
    effects, sizes = _finite(effects, "the effects"), _finite(sizes, "the sizes")
    controls = _finite(control_effects, "the controls' effects")
    if effects.ndim != 1 or len(effects) < 2 or sizes.shape != effects.shape:
        raise InputError(
            f"effects of shape {effects.shape} and sizes of {sizes.shape} cannot be used",
            "give one number for each of 2 or more samples",
        )
    if controls.ndim != 2 or len(controls) < 2 or controls.shape[1] != len(effects):
        raise InputError(
            f"controls' effects of shape {controls.shape} cannot be used",
            f"give 2 or more controls x the same {len(effects)} samples",
        )
    if sizes.min() <= 0:
        raise InputError("a sample has no answer tokens", "leave it out")
    effect, each = float(effects.sum() / sizes.sum()), controls.sum(1) / sizes.sum()
    rank = 1 + broken + int((np.abs(each) >= abs(effect)).sum())
    tokens, own, mean = resampled_sums(np.stack([sizes, effects, controls.mean(0)], axis=1), seed, bootstraps).T
    low, median, high = np.percentile(each, (2.5, 50, 97.5))
    return AblationEffect(
        effect,
        interval(own / tokens),
        float(median),
        (float(low), float(high)),
        len(controls) + broken,
        rank,
        rank / (1 + len(controls) + broken),
        effect - float(each.mean()),
        interval((own - mean) / tokens),
        broken,
    )


def _finite(values: Reals, what: str) -> DoubleArray:
    doubles: DoubleArray = values.astype(np.float64)
    if not np.isfinite(doubles).all():
        raise InputError(f"NaN or infinity in {what}", "measure those samples again, or leave them out")
    return doubles
