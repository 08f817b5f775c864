"""Base, IRM and vector compared in llama.cpp, on one runtime that was made with the IRM."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from irm_lite.core.types import Progress, unwatched
from irm_lite.data.encoding import Sample
from irm_lite.llamacpp.likelihood import llamacpp_log_probabilities
from irm_lite.steering.control_vector import ControlVector
from irm_lite.vectors.fidelity.comparison import Comparison
from irm_lite.vectors.fidelity.steerings import STEERINGS, steerable
from irm_lite.vectors.fidelity.tally import tally

if TYPE_CHECKING:
    from irm_lite.llamacpp import Runtime


def compare_in_llamacpp(
    runtime: "Runtime", vector: ControlVector, samples: Sequence[Sample], on_progress: Progress = unwatched
) -> Comparison:
    """Measure base, IRM and vector on the samples' answers."""
    sums = []
    with steerable(runtime, vector) as steer:
        for sample in samples:
            steered = []
            for name in STEERINGS:
                steer(name)
                steered.append(llamacpp_log_probabilities(runtime, sample))
            sums.append(tally(steered, torch.tensor(sample.ids[sample.answer_start :])))
            on_progress(len(sums), len(samples), "measuring in llama.cpp")
    return Comparison("llama.cpp", torch.stack(sums).numpy())
