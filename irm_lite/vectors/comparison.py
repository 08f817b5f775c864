"""A trained IRM -> static vectors that any llama.cpp program can add, or biases in the model file itself."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from irm_lite.core.bootstrap import Interval, interval, resampled_sums
from irm_lite.core.types import DoubleArray
from irm_lite.data.text_measures import distinct_2

GOOD_FIDELITY = 0.8  # below it static vectors carry only part of an IRM; stands here, as the UI reads it without torch
_COLUMNS = (
    *("tokens", "nll_base", "nll_irm", "nll_vector"),
    *("kl_irm_base", "kl_irm_vector", "kl_base_irm", "kl_base_vector", "top1_agreement"),
)


_NOTHING = 1e-6  # nats a token
Where = Literal["transformers", "llama.cpp"]


@dataclass(frozen=True)
class Comparison:
    """Base, IRM and export on the same answers, in one runtime on the same weights. NLL and KL in nats a token.

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
        """1 - KL(IRM || export) / KL(IRM || base): 1 where the export does what the IRM does, 0 where it does nothing."""
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
    # An IRM that does nothing is done justice by what does nothing: the ratio would be of rounding errors.
    values["fidelity"] = np.where(effect > _NOTHING, 1.0 - lost / np.maximum(effect, _NOTHING), lost <= _NOTHING)
    return values


@dataclass(frozen=True)
class Generations:
    """Greedy answers in llama.cpp to the first held-out questions."""

    questions: list[str]
    texts: dict[str, list[str]]  # by "base", "irm", "vector"

    def distinct_2(self) -> dict[str, tuple[float, Interval]]:
        """Different word pairs / all word pairs of an answer, mean over the answers, and its 95% interval.

        After Li et al. 2016 (arXiv 1510.03055), but within each answer: it falls where the text runs in circles. Answers
        of fewer than two words have no pairs and are left out; 0 where all are such.
        """
        found = {}
        for name, texts in self.texts.items():
            shares = np.array([[1.0, distinct_2(text)] for text in texts if len(text.split()) > 1] or [[1.0, 0.0]])
            sums = resampled_sums(shares)
            found[name] = float(shares[:, 1].mean()), interval(sums[:, 1] / sums[:, 0])
        return found

    def to_dict(self) -> dict[str, Any]:
        measured = {name: {"value": value, "interval_95": list(each)} for name, (value, each) in self.distinct_2().items()}
        return {"questions": self.questions, **self.texts, "distinct_2": measured}
