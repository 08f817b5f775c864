"""What the untouched base alone would have an IRM do: the gradient of an NLL with respect to one vector a layer."""

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn import functional as F

from irm_lite.base.forward import answer_logits
from irm_lite.base.load import Base
from irm_lite.core.types import FloatArray, Progress
from irm_lite.data.encoding import Sample
from irm_lite.data.packing import pack, rows
from irm_lite.steering.injection import inject
from irm_lite.steering.irm import Site, StaticIRM


def gradient_field(
    base: Base,
    samples: Sequence[Sample],
    layers: tuple[int, ...],
    site: Site,
    on_progress: Progress = lambda done, of, what: None,
) -> FloatArray:
    """d(mean NLL of the answers) / d(v_l), (L, H), nats a token, for vectors v_l added at every token of each layer, at v = 0.

    No IRM, nothing trained: what is striated here is given by the residual design and the data, so it is the control for
    an IRM's striations.
    """
    irm = StaticIRM(base.hidden_size, layers, site).to(base.model.device)
    tokens, done = sum(sample.n_answer for sample in samples), 0
    with inject(base.model, irm):
        for group in rows(list(samples)):
            row = pack(group)
            logits = answer_logits(base.model, row)
            loss = F.cross_entropy(logits.float(), row["labels"].to(logits.device), reduction="sum") / tokens
            torch.autograd.backward(loss)
            done += len(group)
            on_progress(done, len(samples), "the base's gradient field")
    assert irm.vectors.grad is not None
    found: FloatArray = irm.vectors.grad.float().cpu().numpy()
    return found


def shuffled(samples: Sequence[Sample], seed: int = 0) -> list[Sample]:
    """The same samples with each answer's tokens in random order, but for the one that ends the turn."""
    generator = np.random.default_rng(seed)
    found = []
    for sample in samples:
        answer = sample.ids[sample.answer_start : -1]
        order = generator.permutation(len(answer)).tolist()
        ids = [*sample.ids[: sample.answer_start], *(answer[place] for place in order), sample.ids[-1]]
        found.append(Sample(ids, sample.answer_start, sample.example))
    return found
