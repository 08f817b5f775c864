"""What a method is to the benchmark: what it makes of the training data, and at which strengths that can be heard."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field

from steering_methods.arena import Arena, Place, Voice

Variant = float | str  # a learning rate, a choice of layers, a phrasing: whatever a method is tried with on validation
STRENGTHS = (0.125, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0)  # of what was trained at 1


@dataclass(frozen=True)
class Made:
    """A steering that was made. `seconds`: of training alone, `parameters`: trained ones."""

    at: Callable[[float], Voice]
    seconds: float = 0.0
    parameters: int = 0
    place: Place = "llama.cpp"
    strengths: tuple[float, ...] = STRENGTHS  # ascending; one alone is not searched
    start: float = 1.0  # where the search begins, one of them
    losses: list[float] = field(default_factory=list)  # of each step, where it was trained here


def fixed(*variants: Variant) -> Callable[[Arena], tuple[Variant, ...]]:
    """The same for all data."""
    return lambda arena: variants


@dataclass(frozen=True)
class Method:
    """`make(arena, seed, variant, held)` trains; what it opens or changes goes into `held`, which is closed after the measuring."""

    name: str
    make: Callable[[Arena, int, Variant, ExitStack], Made]
    variants: Callable[[Arena], tuple[Variant, ...]]  # the first is the default
    seeded: bool = True  # whether chance has a part in it; else it is made once
    pairs: bool = False  # whether it learns from neutral answers too
    searched: bool = False  # variants are compared at their own best strengths, not where the search starts
    follows: str | None = None  # a method whose choice of a variant is taken over
    lacks: Callable[[Arena], str | None] = lambda arena: None  # why it does not apply

    def left_out(self, arena: Arena) -> str | None:
        """Why it does not apply to these data; None where it does."""
        if self.pairs and not arena.pairs:
            return "the data have no neutral answers"
        return self.lacks(arena)
