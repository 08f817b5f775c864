"""Sums over one answer's tokens, from the log-probabilities of base, IRM and vector: a row of a comparison."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from irm_lite.core.log_probabilities import kl


def tally(log_probs: Sequence[Tensor], labels: Tensor) -> Tensor:
    """One sample's row of `Comparison.sums`, (9,), from log-probabilities (A, V) of base, IRM and vector, and the A tokens."""
    base, irm, vector = log_probs
    nlls = [F.nll_loss(each, labels, reduction="sum").item() for each in log_probs]
    pairs = ((irm, base), (irm, vector), (base, irm), (base, vector))
    divergences = [kl(p, q).sum().item() for p, q in pairs]
    agreed = (irm.argmax(-1) == vector.argmax(-1)).sum().item()
    return torch.tensor([len(labels), *nlls, *divergences, agreed], dtype=torch.float64)
