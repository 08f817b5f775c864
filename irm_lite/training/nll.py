"""The base's NLL, as it is injected at the moment."""

import math
from collections.abc import Iterable

import torch

from irm_lite.base.forward import answer_hidden, row_of
from irm_lite.base.heads import head_of
from irm_lite.base.load import Base
from irm_lite.core.machine import processes
from irm_lite.data.encoding import Sample
from irm_lite.data.packing import rows
from irm_lite.training.step.answer_loss import answer_nll


@torch.no_grad()
def mean_nll(base: Base, samples: Iterable[Sample]) -> float:
    """Mean NLL a token, in nats, over the answers, of the base as it is injected at the moment."""
    total, count = 0.0, 0.0
    with processes.agreed():
        for group in processes.share(list(rows(list(samples)))):
            row = row_of(base.model, group)
            hidden = answer_hidden(base.model, row)
            total += answer_nll(head_of(base.model), hidden, row["labels"], row["weights"]).item()
            count += float(row["weights"].sum())
    return processes.sum_of(total) / processes.sum_of(count)


def perplexity(nll: float) -> float:
    """exp(NLL); where that is beyond a float, the largest that is not."""
    return math.exp(min(nll, 700.0))
