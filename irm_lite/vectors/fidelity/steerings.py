"""The ways in which one model is steered to be compared: not at all, by an IRM, by a vector, by adapters. Imports no torch."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

from irm_lite.data.encoding import Sample
from irm_lite.steering.control_vector import ControlVector
from irm_lite.vectors.fidelity.comparison import Where

if TYPE_CHECKING:
    from torch import Tensor

    from irm_lite.llamacpp import Runtime
    from irm_lite.llamacpp.adapters import Scaled

_HELD = 2**25  # values, tokens by vocabulary: of one steering 128 MB at the most, a third of it as a rule, since prompts count

Steering = Literal["base", "irm", "vector", "adapter"]
STEERINGS: tuple[Steering, ...] = ("base", "irm", "vector")  # of a runtime that was made with an IRM, as `eval` compares them


class SteeredRuntime:
    """A runtime in llama.cpp, made with the IRM if there is one, a vector, and adapters that were loaded beside its model."""

    measured_in: Where = "llama.cpp"

    def __init__(self, runtime: "Runtime", vector: ControlVector | None, adapters: "Sequence[Scaled]") -> None:
        self._runtime = runtime
        self._vector = vector
        self._adapters = adapters

    def steer(self, name: Steering, strength: float = 1.0) -> None:
        """From now on."""
        runtime = self._runtime
        if runtime.dynamic is not None:
            runtime.dynamic.enabled, runtime.dynamic.strength = name == "irm", strength
        runtime.set_vector(self._vector if name == "vector" else None, strength)
        runtime.set_adapters([(each, scale * strength) for each, scale in self._adapters] if name == "adapter" else [])

    def rows(self, samples: Sequence[Sample]) -> Iterator[Sequence[Sample]]:
        """As many as `_HELD` allows: what they begin with is read once for all of them."""
        from irm_lite.data.packing import rows

        return rows(samples, max(1, _HELD // self._runtime.model.n_vocabulary))

    def log_probabilities(self, name: Steering, samples: Sequence[Sample], strength: float = 1.0) -> "list[Tensor]":
        """(A, V) of each."""
        from irm_lite.llamacpp.parallel import log_probabilities_together

        self.steer(name, strength)
        return list(log_probabilities_together(self._runtime, samples))


@contextmanager
def steerable(runtime: "Runtime", vector: ControlVector | None, adapters: "Sequence[Scaled]" = ()) -> Iterator[SteeredRuntime]:
    """The runtime to be steered. Afterwards it is as it was made: its IRM on, no vector, no adapters."""
    steered = SteeredRuntime(runtime, vector, adapters)
    try:
        yield steered
    finally:
        steered.steer("irm")
