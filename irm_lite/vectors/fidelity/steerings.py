"""The three ways in which an evaluation steers one llama.cpp runtime: not at all, by its IRM, by a vector."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

from irm_lite.steering.control_vector import ControlVector

if TYPE_CHECKING:
    from irm_lite.llamacpp import Runtime

Steering = Literal["base", "irm", "vector", "adapter"]
# Those of a runtime that was made with an IRM; adapters are measured by adapter/evaluated.py.
STEERINGS: tuple[Steering, ...] = ("base", "irm", "vector")


@contextmanager
def steerable(runtime: "Runtime", vector: ControlVector) -> Iterator[Callable[[Steering], None]]:
    """A function that steers the runtime, which was made with an IRM. Afterwards it is as it was made: the IRM on, no vector."""
    dynamic = runtime.dynamic
    assert dynamic is not None

    def steer(name: Steering) -> None:
        dynamic.enabled = name == "irm"
        runtime.set_vector(vector if name == "vector" else None)

    try:
        yield steer
    finally:
        steer("irm")
