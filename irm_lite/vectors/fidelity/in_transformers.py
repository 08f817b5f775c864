"""Base, IRM and vector compared in transformers, on the base that the IRM was trained on."""

from collections.abc import Iterable

import torch

from irm_lite.base.forward import packed
from irm_lite.base.load import Base
from irm_lite.core.types import Progress, unwatched
from irm_lite.data.encoding import Sample
from irm_lite.data.packing import rows
from irm_lite.steering.control_vector import ControlVector
from irm_lite.steering.irm import IRM
from irm_lite.steering.likelihood import log_probabilities
from irm_lite.vectors.fidelity.comparison import Comparison
from irm_lite.vectors.fidelity.tally import tally

_ROW_TOKENS = 512  # three sets of log-probabilities over the vocabulary are held for a row


@torch.no_grad()
def compare(
    base: Base, irm: IRM, vector: ControlVector, samples: Iterable[Sample], on_progress: Progress = unwatched
) -> Comparison:
    """Measure base, IRM and vector on the samples' answers."""
    samples, sums = list(samples), []
    for group in rows(samples, _ROW_TOKENS):
        row = packed(base.model, group)
        sizes = [sample.n_answer for sample in group]
        steered = [torch.split(log_probabilities(base, row, steer), sizes) for steer in (None, irm, vector)]
        labels = torch.split(row["labels"].to(steered[0][0].device), sizes)
        sums += [tally(each, answer) for each, answer in zip(zip(*steered, strict=True), labels, strict=True)]
        on_progress(len(sums), len(samples), "measuring in transformers")
    return Comparison("transformers", torch.stack(sums).numpy())
