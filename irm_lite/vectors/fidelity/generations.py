"""What base, IRM and vector answer to held-out questions, and how varied these answers are. Imports no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from irm_lite.core.bootstrap import Interval, interval, resampled_sums
from irm_lite.data.text_measures import distinct_2


@dataclass(frozen=True)
class Generations:
    """Greedy answers to the first held-out questions."""

    questions: list[str]
    texts: Mapping[str, list[str]]  # by "base", "irm", "vector"

    def distinct_2(self) -> dict[str, tuple[float, Interval]]:
        """Different word pairs / all word pairs of an answer, mean over the answers, and its 95% interval.

        After Li et al. 2016 (arXiv 1510.03055), but within each answer: it falls where the text repeats itself. Answers of
        fewer than two words have no pairs and are left out; 0 where no answer has any.
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
