"""Control vectors as llama.cpp has them: one direction for each block output, in a GGUF file.

Format, read in llama.cpp's common/common.cpp and confirmed by loading: architecture `controlvector`, tensors
`direction.N` (1-D, F32, hidden size) added to the output of 0-based block N, N from 1. Other keys are free.
"""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from irm_lite.base.fingerprint import Fingerprint, Match
from irm_lite.core.errors import VectorError
from irm_lite.core.files.gguf_types import F32
from irm_lite.core.files.paths import is_there
from irm_lite.core.types import FloatArray
from irm_lite.steering.shipped_vectors import file_of
from irm_lite.steering.steering_file import base_hashes, own_keys_of, read_steering_header, write_steering

_OWN_KEYS = "controlvector.irm."
_MAX_SCALE = 1e6  # beyond it a float32 vector soon overflows
_MAX_FLOATS = 1 << 25  # of all directions; the largest models' have two million
_MEASURED = ("fidelity", "fidelity.on")  # of a vector as it was written
_HUGGING_FACE = {"mistral": "llama", "mixtral": "llama"}  # names that repeng writes as the hint, where GGUF's are quite others


@dataclass(eq=False)
class ControlVector:
    """Directions by block: {N: (H,) float32}, N from 1. Scale 1.0 is the effect it was made for.

    `architecture` is GGUF's name for the model's ("llama"). `metadata` holds irm-lite's own keys without their
    prefix (base.weights, base.graph, base.n_layers, kind, site, method, fidelity, version, ...); empty for files of other tools.

    >>> import numpy as np
    >>> anger = ControlVector({1: np.array([1.0, 0.0]), 2: np.array([2.0, -2.0])}, "llama")
    >>> joy = ControlVector({2: np.array([0.0, 4.0])}, "llama")
    >>> (anger - 0.5 * joy).save("mix.gguf")
    >>> ControlVector.load("mix.gguf").directions[2].tolist()
    [2.0, -4.0]
    """

    directions: dict[int, FloatArray]
    architecture: str
    metadata: dict[str, str | int | float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.directions:
            raise VectorError("a control vector needs at least one direction")
        sizes = {direction.shape for direction in self.directions.values()}
        if len(sizes) != 1 or len(next(iter(sizes))) != 1:
            raise VectorError(f"the directions differ in shape: {sorted(sizes)!s:.80}", "all must be (hidden size,)")
        if sizes == {(0,)}:
            raise VectorError("the directions are empty", "export it again")
        with np.errstate(over="ignore"):  # what is beyond float32 becomes infinite, and is refused below
            self.directions = {n: np.array(self.directions[n], dtype=np.float32) for n in sorted(self.directions)}
        for layer, direction in self.directions.items():
            if layer < 1:
                raise VectorError(f"direction.{layer} cannot be used", "llama.cpp takes directions from 1 on")
            if not np.isfinite(direction).all():
                raise VectorError(f"direction.{layer} holds NaN or infinity", "export it again, or scale it less")

    @property
    def hidden_size(self) -> int:
        return int(next(iter(self.directions.values())).shape[0])

    @property
    def layers(self) -> tuple[int, ...]:
        return tuple(self.directions)

    def __add__(self, other: "ControlVector") -> "ControlVector":
        """Union of the blocks; a missing direction counts as zero. Irm-lite's metadata stays only where equal."""
        if not isinstance(other, ControlVector):
            return NotImplemented
        architectures = list(filter(None, (_gguf_name(each.architecture) for each in (self, other)))) or [self.architecture]
        shapes = [(each.metadata.get("base.n_layers"), each.hidden_size) for each in (self, other)]
        depths = {n_layers for n_layers, _ in shapes if n_layers is not None}
        if len(set(architectures)) > 1 or self.hidden_size != other.hidden_size or len(depths) > 1:
            first, second = (f"of {size}" if n is None else f"of {n} layers of {size}" for n, size in shapes)
            raise VectorError(
                f"a vector for {self.architecture} {first} and one for {other.architecture} {second} cannot be added",
                "use vectors of one model",
            )
        zero = np.zeros(self.hidden_size, dtype=np.float32)
        layers = self.directions.keys() | other.directions.keys()
        with np.errstate(over="ignore"):  # what is beyond float32 is refused by the constructor
            directions = {n: self.directions.get(n, zero) + other.directions.get(n, zero) for n in layers}
        shared = {key: value for key, value in self.metadata.items() if other.metadata.get(key) == value}
        for name in _MEASURED:  # on one vector, not on a sum
            shared.pop(name, None)
        for name in ("base.weights", "base.graph"):
            made_on = dict.fromkeys(filter(None, (str(each.metadata.get(name, "")) for each in (self, other))))
            if made_on:  # of several bases it fits none without a warning
                shared[name] = " + ".join(made_on)
        return ControlVector(directions, architectures[0], shared)

    def __radd__(self, other: object) -> "ControlVector":
        """So that sum() works, which starts from 0."""
        return self if other == 0 else NotImplemented

    def __mul__(self, scale: float) -> "ControlVector":
        if not isinstance(scale, int | float):
            return NotImplemented
        require_scale(scale)
        metadata = {key: value for key, value in self.metadata.items() if key not in _MEASURED}
        with np.errstate(over="ignore"):
            directions = {n: direction * np.float32(scale) for n, direction in self.directions.items()}
        return ControlVector(directions, self.architecture, metadata)

    __rmul__ = __mul__

    def __truediv__(self, scale: float) -> "ControlVector":
        return self * (1.0 / scale)

    def __neg__(self) -> "ControlVector":
        return self * -1.0

    def __sub__(self, other: "ControlVector") -> "ControlVector":
        return self + (-other) if isinstance(other, ControlVector) else NotImplemented

    def norms(self) -> dict[int, float]:
        """Euclidean norm of each direction, in the residual stream's units."""
        return {n: float(np.linalg.norm(direction.astype(np.float64))) for n, direction in self.directions.items()}

    def peak(self, layer: int) -> tuple[int, float]:
        """The index of largest magnitude in a layer's direction, and its value."""
        direction = self.directions[layer]
        index = int(np.abs(direction).argmax())
        return index, float(direction[index])

    def largest(self, count: int) -> list[tuple[int, float]]:
        """The `count` indices with the largest root mean square over the layers, each with that value, largest first."""
        rms = np.sqrt(np.mean(np.square(np.stack(list(self.directions.values())), dtype=np.float64), axis=0))
        return [(int(index), float(rms[index])) for index in np.argsort(-rms, kind="stable")[:count]]

    def select(self, layers: Iterable[int]) -> "ControlVector":
        """Only the directions of these blocks. Raises VectorError where none is left."""
        wanted = set(layers)
        kept = {n: direction for n, direction in self.directions.items() if n in wanted}
        if not kept:
            raise VectorError("none of the chosen layers is in the vector", f"it has {min(self.layers)}-{max(self.layers)}")
        metadata = {key: value for key, value in self.metadata.items() if key not in _MEASURED or len(kept) == len(self.layers)}
        return ControlVector(kept, self.architecture, metadata)

    def as_array(self, n_layers: int) -> FloatArray:
        """(n_layers, H) with row N for block N; rows without a direction are zero. Raises VectorError if one lies beyond."""
        if max(self.layers) >= n_layers:
            raise VectorError(
                f"the vector has direction.{max(self.layers)}, the model has {n_layers} blocks",
                "use it with the model it was made for",
            )
        rows = np.zeros((n_layers, self.hidden_size), dtype=np.float32)
        for layer, direction in self.directions.items():
            rows[layer] = direction
        return rows

    def require_fit(self, model: Fingerprint, name: str) -> Match:
        """What to tell the user where the vector goes into this model, called `name`. Raises VectorError where it cannot."""
        architecture = _gguf_name(self.architecture) or model.architecture
        n_layers = self.metadata.get("base.n_layers", model.n_layers)
        made_for = n_layers if isinstance(n_layers, int) else model.n_layers
        made_on = Fingerprint(architecture, made_for, self.hidden_size, *base_hashes(self.metadata))
        match = model.match(made_on, "the control vector", name)
        self.as_array(model.n_layers)  # no direction beyond the last block
        return match

    def save(self, path: Path | str) -> None:
        """Write the GGUF file, atomically. Raises VectorError where the place cannot be written."""
        write_steering(path, "controlvector", _OWN_KEYS, self.metadata, self._fill)

    def _fill(self, writer: Any) -> None:
        writer.add_string("controlvector.model_hint", self.architecture)
        writer.add_uint32("controlvector.layer_count", len(self.directions))
        for layer, direction in self.directions.items():
            writer.add_tensor(f"direction.{layer}", direction)

    @classmethod
    def load(cls, path: Path | str) -> "ControlVector":
        """Read a control vector of irm-lite, repeng or llama.cpp's cvector-generator, or one that ships with irm-lite, by its name.

        Raises VectorError where it is not one, or where llama.cpp would refuse or misread it.
        """
        path = file_of(path)
        header = read_steering_header(path)
        if header.architecture != "controlvector":
            adapter = header.metadata.get("general.type") == "adapter"
            what = "LoRA adapter" if adapter else f"{header.architecture or 'nameless'} model"
            raise VectorError(
                f"{path} is a {what}, not a control vector", "give it as --adapter" if adapter else "give the vector's .gguf"
            )
        if sum(math.prod(tensor.shape) for tensor in header.tensors.values()) > _MAX_FLOATS:
            raise VectorError(f"{path} is larger than any model's control vector", "give the vector's .gguf")
        directions: dict[int, FloatArray] = {}
        for name, tensor in header.tensors.items():
            match = re.fullmatch(r"direction\.(0|[1-9]\d{0,5})", name, re.ASCII)
            if not match:
                raise VectorError(f"{path}: tensor {name!r} is not a direction", "a control vector holds only direction.N")
            if len(tensor.shape) != 1:
                raise VectorError(f"{path}: {name} has {len(tensor.shape)} dimensions", "directions are 1-D")
            if tensor.type != F32:
                raise VectorError(f"{path}: {name} is not F32", "llama.cpp takes only F32 directions")
            directions[int(match[1])] = header.read_f32(name)
        hint = header.metadata.get("controlvector.model_hint", "")
        try:
            return cls(directions, str(hint), own_keys_of(header, _OWN_KEYS))
        except VectorError as error:
            raise VectorError(f"{path}: {error}") from None


def _gguf_name(hint: str) -> str:
    """GGUF's name for the architecture that a hint means; empty where it has none so called: shapes decide, as in llama.cpp."""
    from gguf import MODEL_ARCH_NAMES

    known = {re.sub("[-_]", "", name): name for name in MODEL_ARCH_NAMES.values()}
    return _HUGGING_FACE.get(hint) or known.get(re.sub("[-_]", "", hint.lower()), "")


def parse_vector_argument(argument: str) -> tuple[Path, float]:
    """PATH[:SCALE]: split at the last ':' only where a number follows, so that C:\\v.gguf stays a path."""
    if not argument:
        raise VectorError("a vector argument is empty", "write PATH or PATH:0.8")
    head, colon, tail = argument.rpartition(":")
    number = re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|[+-]?(nan|inf|infinity)", tail, re.ASCII | re.IGNORECASE)
    if not (colon and head and number) or is_there(Path(argument)):
        return Path(argument), 1.0
    return Path(head), require_scale(float(tail), f" of {head}", "write PATH:0.8")


def require_scale(scale: float, what: str = "", hint: str = "give one like 0.8") -> float:
    """The scale. Raises VectorError where it is not finite, or so large that a float32 vector soon overflows."""
    if not np.isfinite(scale):
        raise VectorError(f"scale {scale}{what} is not a finite number", hint)
    if abs(scale) > _MAX_SCALE:
        raise VectorError(f"scale {scale:g}{what} is out of range", hint)
    return scale


def load_sum(arguments: Iterable[str]) -> ControlVector | None:
    """The sum of PATH[:SCALE] arguments; None where there are none. A single one at scale 1 keeps its metadata."""
    total: ControlVector | None = None
    for argument in arguments:
        path, scale = parse_vector_argument(argument)
        vector = ControlVector.load(path)
        vector = vector if scale == 1.0 else vector * scale
        total = vector if total is None else total + vector
    return total
