"""One model steered in several ways on the same answers, in whichever runtime: each against what it is to do, and the base."""

from collections.abc import Iterable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from irm_lite.core.types import Progress, unwatched
from irm_lite.data.encoding import Sample
from irm_lite.vectors.fidelity.comparison import Comparison, Where
from irm_lite.vectors.fidelity.steerings import Steering
from irm_lite.vectors.fidelity.tally import tally


class Steerable(Protocol):
    """A model that can be steered in each way."""

    measured_in: Where

    def rows(self, samples: Sequence[Sample]) -> Iterable[Sequence[Sample]]:
        """The samples in groups that are read at once."""
        ...

    def log_probabilities(self, name: Steering, samples: Sequence[Sample], strength: float = 1.0) -> list[Tensor]:
        """(A, V) at the positions where each sample's answer is predicted."""
        ...


def compared(
    model: Steerable,
    samples: Sequence[Sample],
    on_progress: Progress = unwatched,
    teacher: Steering = "irm",
    students: Sequence[Steering] = ("vector",),
) -> dict[Steering, Comparison]:
    """The students, each against the teacher and the base. In a comparison whose teacher is the vector, "irm" means it."""
    sums: dict[Steering, list[Tensor]] = {student: [] for student in students}
    done = 0
    for group in model.rows(samples):
        base, taught, *said = (_floats(model.log_probabilities(name, group)) for name in ("base", teacher, *students))
        for student, theirs in zip(students, said, strict=True):
            for sample, *each in zip(group, base, taught, theirs, strict=True):
                sums[student].append(tally(each, torch.tensor(sample.ids[sample.answer_start :])))
        done += len(group)
        on_progress(done, len(samples), f"measuring in {model.measured_in}")
    return {student: Comparison(model.measured_in, torch.stack(rows).numpy()) for student, rows in sums.items()}


def _floats(values: list[Tensor]) -> list[Tensor]:
    return [each.float().cpu() for each in values]
