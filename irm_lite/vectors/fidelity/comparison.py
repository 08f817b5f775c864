"""The figures of base, IRM and vector on the same answers, from sums over samples: means, fidelity, intervals. Imports no torch."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from irm_lite.core.bootstrap import Interval, interval, resampled_sums
from irm_lite.core.types import DoubleArray

GOOD_FIDELITY = 0.8  # below it static vectors carry only part of an IRM
_NEGLIGIBLE = 1e-6  # nats a token
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
        """95% bootstrap intervals of the same, over samples."""
        return {name: interval(values) for name, values in _ratios(resampled_sums(self.sums)).items()}

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
        """1 - KL(IRM || vector) / KL(IRM || base): 1 where the vector does what the IRM does, 0 where it does nothing."""
        return self.means["fidelity"]

    def to_dict(self) -> dict[str, Any]:
        return {
            "measured_in": self.measured_in,
            "samples": len(self.sums),
            "tokens": self.tokens,
            **self.means,
            "intervals_95": {name: list(each) for name, each in self.intervals.items()},
        }


def _ratios(sums: DoubleArray) -> dict[str, DoubleArray]:
    """Sums (..., 9) -> means a token, and the fidelity, (...)."""
    tokens = sums[..., 0]
    values = {name: sums[..., column] / tokens for column, name in enumerate(_COLUMNS) if column}
    effect, lost = values["kl_irm_base"], values["kl_irm_vector"]
    # Where the IRM does nothing the ratio would be one of rounding errors: 1 for a vector that does nothing either, else 0.
    values["fidelity"] = np.where(effect > _NEGLIGIBLE, 1.0 - lost / np.maximum(effect, _NEGLIGIBLE), lost <= _NEGLIGIBLE)
    return values
