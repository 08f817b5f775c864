"""NLL of answer tokens through a frozen head, without ever holding all their logits at once.

The head has no gradient of its own, so each chunk's gradient with respect to the hidden states is computed right away,
(softmax - one-hot) @ W, the derivative of the NLL (times the slope of a factor or a soft cap); then its logits are freed.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from irm_lite.base.heads import FinishedHead

CHUNK = 96  # rows of logits held at once: 19 MB in float32 for a vocabulary of 49,152


def answer_nll(head: nn.Module, hidden: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """NLL in nats, summed over the answer tokens, of final hidden states (A, H) and their labels (A,), each `weights` (A,) times;
    on any devices."""
    place = next(head.parameters()).device  # of a base on several GPUs another than its last block's
    hidden, labels, weights = hidden.to(place), labels.to(place), weights.to(place)
    linear = head.linear if isinstance(head, FinishedHead) else head
    if type(linear) is not nn.Linear or linear.weight.requires_grad:
        return (weights * F.cross_entropy(head(hidden).float(), labels, reduction="none")).sum()
    apply: Any = _FrozenHead.apply  # typed since torch 2.14
    total: Tensor = apply(hidden, labels, weights, head, torch.is_grad_enabled())
    return total


class _FrozenHead(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, labels: Tensor, weights: Tensor, head: nn.Linear | FinishedHead, with_gradient: bool
    ) -> Tensor:
        total = torch.zeros((), device=hidden.device)
        gradients = []
        for part, wanted, counts in zip(*(torch.split(each, CHUNK) for each in (hidden, labels, weights)), strict=True):
            logits = head(part)
            chosen = logits.gather(1, wanted[:, None]).float()
            largest, place = logits.max(1, keepdim=True)
            chances = torch.softmax(logits, 1, dtype=torch.float32)
            # log sum exp without a second pass of exponentials: the likeliest token's chance is at least 1 / V
            nll = largest.float() - chances.gather(1, place).log() - chosen
            total += (counts[:, None] * nll).sum()
            if with_gradient:
                chances.scatter_add_(1, wanted[:, None], -torch.ones_like(chosen))
                chances.mul_(counts[:, None])
                if isinstance(head, FinishedHead):
                    chances.mul_(head.slopes(logits.float()))
                gradients.append(chances.to(head.weight.dtype) @ head.weight)
        if with_gradient:
            ctx.save_for_backward(torch.cat(gradients))
        return total

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor, None, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return (gradient * outputs[0]).to(gradient.dtype), None, None, None, None
