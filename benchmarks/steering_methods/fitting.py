"""The optimiser of all methods that are trained here: AdamW, warm-up over a tenth, cosine to zero, gradients clipped to 1."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import TypeVar

import torch
from torch import Tensor

from contenders.samples import epochs
from irm_lite.core.errors import TrainingFailed
from steering_methods.arena import BATCH_SIZE

T = TypeVar("T")
WARM_UP = 0.1  # of the steps, as irm_lite's own trainings have it


def batches(items: Sequence[T], steps: int, seed: int) -> Iterator[list[T]]:
    """One batch a step, in the order in which irm_lite's trainings of this seed take them."""
    return islice(chain.from_iterable(epochs(items, BATCH_SIZE, seed)), steps)


def fit(
    parameters: Iterable[Tensor], steps: Iterable[T], loss_of: Callable[[T], Tensor], total: int, rate: float, decay: float = 0.0
) -> list[float]:
    """One optimiser step for each of `steps`, `total` in all. Gives the loss before each; raises TrainingFailed where one is not
    finite."""
    trained = list(parameters)
    optimiser = torch.optim.AdamW(trained, lr=rate, weight_decay=decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: course(step, total))
    losses = []
    for step in steps:
        loss = loss_of(step)
        losses.append(loss.item())
        if not math.isfinite(losses[-1]):
            raise TrainingFailed(f"the loss is {losses[-1]} at step {len(losses)}", "try a lower rate")
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
        schedule.step()
    return losses


def course(step: int, total: int) -> float:
    """The rate's share of its peak at a step, counted from 0."""
    warm = max(1, round(WARM_UP * total))
    return (step + 1) / warm if step < warm else 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, total - warm)))
