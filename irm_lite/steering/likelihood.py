"""Log-probabilities of answers in transformers, steered or not, and the divergence between two of them."""

from contextlib import ExitStack

from torch import Tensor
from torch.nn import functional as F

from irm_lite.base.forward import answer_logits
from irm_lite.base.load import Base
from irm_lite.steering.control_vector import ControlVector
from irm_lite.steering.injection import inject
from irm_lite.steering.irm import IRM


def kl(p: Tensor, q: Tensor) -> Tensor:
    """KL(p || q) in nats, (..., V) log-probabilities -> (...)."""
    return (p.exp() * (p - q)).sum(-1)


def log_probabilities(base: Base, row: dict[str, Tensor], steer: "IRM | ControlVector | None") -> Tensor:
    """Log-probabilities (A, V), float32, at the answer positions of one packed row, steered or not."""
    with ExitStack() as stack:
        if steer is not None:
            stack.enter_context(inject(base.model, steer))
        return F.log_softmax(answer_logits(base.model, row).float(), dim=-1)
