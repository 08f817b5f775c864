"""The losses that learn from pairs, as functions of log-likelihoods. Sums over answer tokens in nats, one a pair, (B,).

RePS: Wu et al. 2025, arXiv 2505.20809. BiPO: Cao et al. 2024, arXiv 2406.00045.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

BETA = 0.1  # BiPO's own


@dataclass(frozen=True)
class Likelihoods:
    """Log-likelihoods of a question's answer in the tone and of its neutral one, (B,) each."""

    toned: Tensor
    neutral: Tensor

    def to(self, device: torch.device) -> "Likelihoods":
        return Likelihoods(self.toned.to(device), self.neutral.to(device))


def reps_loss(steered: Likelihoods, nulled: Likelihoods, plain: Likelihoods, lengths: Likelihoods) -> Tensor:
    """Steered, the tone's answer is to win; with the direction nulled, the neutral one. Each by its likelihood a token; that of the
    winner is weighted by how much likelier the loser is to the `plain` model, as sums, and at least by 1."""
    up = torch.clamp(plain.neutral - plain.toned, min=1)
    down = torch.clamp(plain.toned - plain.neutral, min=1)
    won = up * steered.toned / lengths.toned - steered.neutral / lengths.neutral
    lost = down * nulled.neutral / lengths.neutral - nulled.toned / lengths.toned
    return -(F.logsigmoid(won) + F.logsigmoid(lost)).mean()


def bipo_loss(steered: Likelihoods, plain: Likelihoods, sign: float) -> Tensor:
    """DPO's loss with the unsteered model as reference; steered with the `sign` of -1, the neutral answer is preferred."""
    gained = (steered.toned - plain.toned) - (steered.neutral - plain.neutral)
    return -F.logsigmoid(sign * BETA * gained).mean()
