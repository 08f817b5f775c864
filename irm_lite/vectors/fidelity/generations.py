"""What base, IRM and vector answer to held-out questions in llama.cpp, and how varied these answers are. Imports no torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from irm_lite.core.bootstrap import Interval, interval, resampled_sums
from irm_lite.core.types import Progress, unwatched
from irm_lite.data.encoding import Sample
from irm_lite.data.text_measures import distinct_2
from irm_lite.steering.control_vector import ControlVector
from irm_lite.vectors.fidelity.steerings import STEERINGS, steerable

if TYPE_CHECKING:
    from irm_lite.llamacpp import Runtime


@dataclass(frozen=True)
class Generations:
    """Greedy answers in llama.cpp to the first held-out questions."""

    questions: list[str]
    texts: dict[str, list[str]]  # by "base", "irm", "vector"

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


def generate_answers(
    runtime: "Runtime", vector: ControlVector, samples: Sequence[Sample], new_tokens: int, on_progress: Progress = unwatched
) -> Generations | None:
    """Greedy answers of base, IRM and vector to the samples' questions; None where there are no questions."""
    asked = [sample for sample in samples if sample.example.messages]
    if not asked:
        return None
    texts: dict[str, list[str]] = {name: [] for name in STEERINGS}
    with steerable(runtime, vector) as steer:
        for name in STEERINGS:
            steer(name)
            for sample in asked:
                tokens = runtime.generate_tokens(sample.ids[: sample.answer_start], max_new_tokens=new_tokens)
                texts[name].append("".join(runtime.model.decode_pieces(tokens)).strip())
                on_progress(sum(map(len, texts.values())), 3 * len(asked), "generating")
    return Generations([sample.example.question for sample in asked], texts)
