"""The figures of base, IRM and vector on the same answers, from sums over samples: means, fidelity, intervals. Imports no torch."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from irm_lite.core.bootstrap import Interval, interval, resampled_sums
from irm_lite.core.types import DoubleArray

GOOD_FIDELITY = 0.8  # below it static vectors carry only part of an IRM
_NEGLIGIBLE = 1e-6  # nats a token: below it are rounding errors, which a ratio would blow up
_COLUMNS = (
    *("tokens", "nll_base", "nll_irm", "nll_vector"),
    *("kl_irm_base", "kl_irm_vector", "kl_base_irm", "kl_base_vector", "top1_agreement"),
)
Where = Literal["transformers", "llama.cpp"]


@dataclass(frozen=True)
class Comparison:
    """Base, IRM and vector on the same answers, in one runtime on the same weights. NLL and KL in nats a token.

    `sums` (N, 9): for each of N samples the number of answer tokens and sums over them, in the order of _COLUMNS.
    """

    measured_in: Where
    sums: DoubleArray

    @cached_property
    def means(self) -> dict[str, float]:
        """Means over the answer tokens of all samples, and the fidelity."""
        return {name: float(value) for name, value in _ratios(self.sums.sum(0)).items()}

    @cached_property
    def intervals(self) -> dict[str, Interval]:
        """95% bootstrap intervals of the same, over samples; of a fidelity that there is none of, NaN."""
        found = _ratios(resampled_sums(self.sums))
        effects = found["fidelity"]
        there = effects[~np.isnan(effects)]  # in a draw of other samples the IRM may do nothing
        found["fidelity"] = effects if math.isnan(self.fidelity) or not len(there) else there
        return {name: interval(values) for name, values in found.items()}

    def measured_on(self, quantisation: str) -> str:
        """Where, and on which weights, as a fidelity's key says it."""
        return f"{self.measured_in}, {'not quantised' if quantisation == 'none' else quantisation}"

    @property
    def tokens(self) -> int:
        return int(self.sums[:, 0].sum())

    @property
    def nll_base(self) -> float:
        return self.means["nll_base"]

    @property
    def nll_irm(self) -> float:
        return self.means["nll_irm"]

    @property
    def nll_vector(self) -> float:
        return self.means["nll_vector"]

    @property
    def kl_irm_base(self) -> float:
        return self.means["kl_irm_base"]

    @property
    def kl_irm_vector(self) -> float:
        return self.means["kl_irm_vector"]

    @property
    def fidelity(self) -> float:
        """1 - KL(IRM || vector) / KL(IRM || base): 1 where the vector does what the IRM does, 0 where it does nothing; NaN where
        the IRM does nothing, of which no vector can carry a share."""
        return self.means["fidelity"]

    @property
    def unsteered(self) -> str | None:
        """What is to be said where the IRM or the vector changes nothing of what the model says, in a line."""
        still = [name for name, key in (("IRM", "kl_irm_base"), ("vector", "kl_base_vector")) if self.means[key] <= _NEGLIGIBLE]
        if not still:
            return None
        same = f"the model says the same as without (KL below {_NEGLIGIBLE:g})"
        what = f"nothing is steered by the {' or by the '.join(still)}: {same}"
        return f"{what}, and there is no fidelity; train it longer, or at a higher --learning-rate" if "IRM" in still else what

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it: null where there is no fidelity."""
        means: dict[str, float | None] = {**self.means}
        intervals: dict[str, list[float] | None] = {name: list(each) for name, each in self.intervals.items()}
        if math.isnan(self.fidelity):
            means["fidelity"] = intervals["fidelity"] = None
        about = {"measured_in": self.measured_in, "samples": len(self.sums), "tokens": self.tokens, "unsteered": self.unsteered}
        return {**about, **means, "intervals_95": intervals}


def _ratios(sums: DoubleArray) -> dict[str, DoubleArray]:
    """Sums (..., 9) -> means a token, and the fidelity, (...)."""
    tokens = sums[..., 0]
    values = {name: sums[..., column] / tokens for column, name in enumerate(_COLUMNS) if column}
    effect, lost = values["kl_irm_base"], values["kl_irm_vector"]
    values["fidelity"] = np.where(effect > _NEGLIGIBLE, 1.0 - lost / np.maximum(effect, _NEGLIGIBLE), np.nan)
    return values
