"""Log-probabilities of answers in transformers, steered or not."""

from contextlib import ExitStack

from torch import Tensor

from irm_lite.base.forward import answer_logits
from irm_lite.base.load import Base
from irm_lite.core.log_probabilities import log_softmax
from irm_lite.steering.control_vector import ControlVector
from irm_lite.steering.injection import inject
from irm_lite.steering.irm import IRM


def log_probabilities(base: Base, row: dict[str, Tensor], steer: "IRM | ControlVector | None") -> Tensor:
    """Log-probabilities (A, V), float32, at the answer positions of one packed row, steered or not."""
    with ExitStack() as stack:
        if steer is not None:
            stack.enter_context(inject(base.model, steer))
        return log_softmax(answer_logits(base.model, row))
