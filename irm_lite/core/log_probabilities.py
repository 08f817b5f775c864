"""Log-probabilities over the vocabulary, and how far two of them are apart: a few positions at a time, in little memory."""

import torch
from torch import Tensor
from torch.nn import functional as F

# Values at a time: what is worked out stays in the cache, and malloc does not fetch each piece from the system and hand it back
_AT_A_TIME = 2**20


def kl(p: Tensor, q: Tensor) -> Tensor:
    """KL(p || q) in nats, (..., V) log-probabilities -> (...)."""
    if torch.is_grad_enabled() and (p.requires_grad or q.requires_grad):
        return (p.exp() * (p - q)).sum(-1)
    found = torch.empty(p.shape[:-1], dtype=p.dtype, device=p.device)
    few = _rows(p.shape[-1])
    pieces = torch.split(found.view(-1), few), _split(p, few), _split(q, few)
    for into, some_p, some_q in zip(*pieces, strict=True):
        torch.sum(some_p.exp() * (some_p - some_q), -1, out=into)
    return found


def log_softmax(logits: Tensor) -> Tensor:
    """Log-probabilities, float32, of logits (..., V) in any format. The same bits as `F.log_softmax` of all at once."""
    if torch.is_grad_enabled() and logits.requires_grad:
        return F.log_softmax(logits.float(), dim=-1)
    found = torch.empty(logits.shape, dtype=torch.float32, device=logits.device)
    few = _rows(logits.shape[-1])
    for into, some in zip(_split(found, few), _split(logits, few), strict=True):
        torch.log_softmax(some.float(), -1, out=into)
    return found


def _rows(width: int) -> int:
    return max(1, _AT_A_TIME // max(1, width))


def _split(values: Tensor, few: int) -> tuple[Tensor, ...]:
    """Pieces (few, V) of (..., V)."""
    return torch.split(values.reshape(-1, values.shape[-1]), few)
