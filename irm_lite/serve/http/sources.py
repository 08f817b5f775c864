"""What steers, as it is kept by name, and as one answer is steered by it."""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from irm_lite.base.fingerprint import Match
from irm_lite.llamacpp.adapters import LoadedAdapter, Scaled
from irm_lite.serve.column import Work
from irm_lite.steering.control_vector import ControlVector
from irm_lite.steering.layers import format_layers

if TYPE_CHECKING:
    from irm_lite.steering.irm import IRM


@dataclass(frozen=True, eq=False)
class Source:
    """One thing that steers. `number` tells apart what was loaded under one name in turn. Exactly one of vector, irm and adapter is
    there; an adapter steers at `factor` times the scale that is asked for, and has no layers to choose from."""

    name: str
    number: int
    file: str
    layers: tuple[int, ...]
    match: Match
    vector: ControlVector | None = None
    irm: "IRM | None" = None
    adapter: LoadedAdapter | None = None
    factor: float = 1.0

    @property
    def kind(self) -> str:
        """What it is, for clients."""
        if self.adapter is not None:
            return "adapter"
        return "vector" if self.vector is not None else "irm"

    def document(self) -> dict[str, Any]:
        """What clients are told of it."""
        layers = None if self.adapter is not None else format_layers(self.layers)
        return {"name": self.name, "kind": self.kind, "file": self.file, "layers": layers, **asdict(self.match)}


@dataclass(frozen=True, eq=False)
class Steering:
    """What steers one answer: the sum of vectors and adapters beside it, or an IRM, or nothing. Two that steer alike have the same
    `vector` object and equal `adapters`, or the same `irm`, and equal strengths and layers."""

    shown: tuple[dict[str, Any], ...] = ()
    vector: ControlVector | None = None
    irm: Source | None = None
    strength: float = 1.0
    layers: tuple[int, ...] = ()
    adapters: tuple[Scaled, ...] = ()

    @property
    def work(self) -> Work:
        """The same as a column has it."""
        return Work(self.vector, self.strength, self.layers, self.adapters)
