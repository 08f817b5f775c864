"""What fits something to an IRM by KL(IRM || it) over answer positions: the IRM's lessons, and the descent that keeps what is best.

Only the teacher's final hidden states are kept, (A, H) a sample; its logits are one matrix product away.
"""

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from irm_lite.base.forward import answer_hidden, row_of
from irm_lite.base.heads import head_of
from irm_lite.base.load import Base
from irm_lite.core.log_probabilities import kl, log_softmax
from irm_lite.core.types import Progress, unwatched
from irm_lite.data.encoding import Sample
from irm_lite.data.packing import Row, rows

BATCH = 8  # samples a step
EVALUATIONS = 5


@dataclass(frozen=True)
class Lessons:
    """Samples with the hidden states (A, H) that the IRM leads to at their answer positions, and held-out ones in packed rows."""

    base: Base
    samples: list[Sample]
    hidden: list[Tensor]
    held_out: list[tuple[Row, Tensor]]

    @torch.no_grad()
    def held_out_kl(self) -> float:
        """KL(IRM || the model as it is now), mean nats a token."""
        return float(torch.cat([_kl(self.base, row, teacher) for row, teacher in self.held_out]).mean())


def lesson_rows(base: Base, samples: list[Sample], hidden: list[Tensor]) -> list[tuple[Row, Tensor]]:
    """Rows with the teacher's hidden states (A, H) at their answer positions."""
    lessons, remaining = [], iter(hidden)
    for group in rows(samples):
        lessons.append((row_of(base.model, group), torch.cat([next(remaining) for _ in group])))
    return lessons


def descend(
    lessons: Lessons,
    parameters: Iterable[Tensor],
    rate: float,
    steps: int,
    shuffle: random.Random,
    kept: Callable[[], Any],
    on_progress: Progress = unwatched,
) -> tuple[float, Any]:
    """Adam from `rate` to 0 by a cosine. Returns the lowest held-out KL of those that were looked at, the start's among them, and
    what `kept()` gave there."""
    best_kl, best = lessons.held_out_kl(), kept()
    optimiser = torch.optim.Adam(parameters, lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    order: list[int] = []
    for step in range(1, steps + 1):
        while len(order) < BATCH:
            order += shuffle.sample(range(len(lessons.samples)), len(lessons.samples))
        chosen, order = order[:BATCH], order[BATCH:]
        row = row_of(lessons.base.model, [lessons.samples[number] for number in chosen])
        loss = _kl(lessons.base, row, torch.cat([lessons.hidden[number] for number in chosen])).mean()
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
        if step % max(1, steps // EVALUATIONS) == 0 or step == steps:
            now = lessons.held_out_kl()
            if now < best_kl:
                best_kl, best = now, kept()
        on_progress(step, steps, f"held-out KL {best_kl:.3f}")
    return best_kl, best


def _kl(base: Base, row: Row, teacher: Tensor) -> Tensor:
    """KL(teacher || the model as it is now) at each answer position, (A,)."""
    head = head_of(base.model)
    with torch.no_grad():
        target = log_softmax(head(teacher))
    return kl(target, log_softmax(head(answer_hidden(base.model, row))))
