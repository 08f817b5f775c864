"""Base, IRM and vector compared in llama.cpp, on one runtime that was made with the IRM."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from irm_lite.core.types import Progress, unwatched
from irm_lite.data.encoding import Sample
from irm_lite.steering.control_vector import ControlVector
from irm_lite.vectors.fidelity.comparing import compared
from irm_lite.vectors.fidelity.comparison import Comparison
from irm_lite.vectors.fidelity.steerings import steerable

if TYPE_CHECKING:
    from irm_lite.llamacpp import Runtime


def compare_in_llamacpp(
    runtime: "Runtime", vector: ControlVector, samples: Sequence[Sample], on_progress: Progress = unwatched
) -> Comparison:
    """Measure base, IRM and vector on the samples' answers."""
    with steerable(runtime, vector) as steered:
        return compared(steered, samples, on_progress)["vector"]
