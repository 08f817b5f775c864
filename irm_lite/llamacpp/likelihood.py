"""Log-probabilities and NLL of answers in llama.cpp, as the runtime is steered at the moment."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from irm_lite.core.log_probabilities import log_softmax
from irm_lite.core.types import DoubleArray
from irm_lite.data.encoding import Sample

if TYPE_CHECKING:
    from irm_lite.llamacpp import Runtime


def llamacpp_log_probabilities(runtime: "Runtime", sample: Sample) -> Tensor:
    """Log-probabilities (A, V), float32, of one sample's answer in llama.cpp, as it is steered at the moment."""
    logits = runtime.logits(sample.ids[:-1], range(sample.answer_start - 1, len(sample.ids) - 1))
    return log_softmax(torch.from_numpy(logits))


def llamacpp_nll(runtime: "Runtime", samples: Iterable[Sample]) -> float:
    """Mean NLL a token, in nats, over the samples' answers in llama.cpp, as it is steered at the moment."""
    tokens, nll = answer_nlls(runtime, samples).sum(0)
    return float(nll / tokens)


def answer_nlls(runtime: "Runtime", samples: Iterable[Sample]) -> DoubleArray:
    """(N, 2): each answer's tokens and the sum of their NLL in llama.cpp, as it is steered at the moment."""
    return np.array([answer_nll(llamacpp_log_probabilities(runtime, sample), sample) for sample in samples])


def answer_nll(log_probs: Tensor, sample: Sample) -> tuple[int, float]:
    """An answer's tokens and the sum of their NLL, from log-probabilities (A, V)."""
    labels = torch.tensor(sample.ids[sample.answer_start :])
    return len(labels), F.nll_loss(log_probs, labels, reduction="sum").item()


def context_for(samples: Iterable[Sample]) -> int:
    """A llama.cpp context that holds the longest sample."""
    return max(len(sample.ids) for sample in samples) + 8
