"""LoRA adapters as llama.cpp has them: factors beside a model's linear maps, in a GGUF file.

Format, read in llama.cpp's convert_lora_to_gguf.py and llama-adapter.cpp: `general.type` adapter, `adapter.type` lora,
`adapter.lora.alpha` (float32), tensors NAME.weight.lora_a (r, n_in) and NAME.weight.lora_b (n_out, r). What is added to a map's
output is scale * alpha / r * B A x. Other keys are free.
"""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from irm_lite.base.fingerprint import BAKED, Fingerprint, Match
from irm_lite.core.errors import VectorError, reason
from irm_lite.core.files.gguf_header import GgufHeader
from irm_lite.core.files.gguf_types import F32, ValueType
from irm_lite.core.files.paths import is_file, is_there
from irm_lite.core.types import FloatArray
from irm_lite.steering.steering_file import base_hashes, own_keys_of, read_steering_header, write_steering

OWN_KEYS = "adapter.irm."
_ENDS = (".weight.lora_a", ".weight.lora_b")
_MAX_FLOATS = 1 << 29  # of all factors: rank 64 on every map of a large model
_ALPHA = "adapter.lora.alpha"
_ACTIVATED = "adapter.alora.invocation_tokens"
_EMBEDDING = "token_embd."
_PEFT = ("adapter_model.safetensors", "adapter_model.bin", "adapter_config.json")
_CONVERT = "convert it by llama.cpp's convert_lora_to_gguf.py"


@dataclass(frozen=True, eq=False)
class Factors:
    """Of one linear map: `a` (r, n_in) and `b` (n_out, r), float32."""

    a: FloatArray
    b: FloatArray

    @property
    def rank(self) -> int:
        return int(self.a.shape[0])


@dataclass(eq=False)
class Adapter:
    """Factors by the GGUF name of their map ("blk.3.ffn_down"). Scale 1.0 is the effect it was made for.

    `architecture` is GGUF's name for the model's. `alpha` is divided by each map's rank. `metadata` holds irm-lite's own keys
    without their prefix; empty for files of other tools.

    >>> import numpy as np
    >>> factors = Factors(np.ones((1, 4), np.float32), np.ones((2, 1), np.float32))
    >>> Adapter({"blk.1.ffn_down": factors}, "llama").save("tone.gguf")
    >>> Adapter.load("tone.gguf").shapes
    {'blk.1.ffn_down': (4, 2)}
    """

    factors: dict[str, Factors]
    architecture: str
    alpha: float = 1.0
    metadata: dict[str, str | int | float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.factors:
            raise VectorError("an adapter needs the factors of at least one map")
        if not math.isfinite(self.alpha):
            raise VectorError("the adapter's alpha is not finite", "export it again")
        if self.alpha == 0:  # llama.cpp takes the scale alone, as if there were none
            raise VectorError("the adapter's alpha is 0, by which PEFT adds nothing and llama.cpp all of it", "convert it again")
        for name, each in self.factors.items():
            _require_sound(name, each)

    @property
    def shapes(self) -> dict[str, tuple[int, int]]:
        """By map: what it reads and what it puts out."""
        return {name: (each.a.shape[1], each.b.shape[0]) for name, each in self.factors.items()}

    def require_fit(self, model: GgufHeader, fingerprint: Fingerprint) -> Match:
        """What to tell the user where the adapter goes into this model file. Raises VectorError where it cannot."""
        name = model.path.name
        if self.architecture != fingerprint.architecture:
            raise VectorError(
                f"the adapter was made for {self.architecture}, {name} is {fingerprint.architecture}",
                "use the model it was made for",
            )
        if BAKED in model.metadata and self.metadata:
            raise VectorError(
                f"{name} has a vector baked into it, which the adapter would add to", "use the original: irm-lite bake --undo"
            )
        for module, (n_in, n_out) in self.shapes.items():
            tensor = model.tensors.get(f"{module}.weight")
            if tensor is None:
                raise VectorError(f"the adapter is for {module}, which {name} does not have", "use the model it was made for")
            if tensor.shape != (n_in, n_out):
                there = " to ".join(map(str, tensor.shape))
                raise VectorError(
                    f"the adapter's {module} goes from {n_in} to {n_out}, that of {name} from {there}",
                    "use the model it was made for",
                )
        return fingerprint.match(self.made_on(fingerprint), "the adapter", name)

    def made_on(self, model: Fingerprint) -> Fingerprint:
        """What its keys say of its base; where they say nothing, as `model` is."""
        sizes = [self.metadata.get(f"base.{key}") for key in ("n_layers", "hidden_size")]
        here = (model.n_layers, model.hidden_size)
        n_layers, hidden_size = (was if isinstance(was, int) else now for was, now in zip(sizes, here, strict=True))
        return Fingerprint(self.architecture, n_layers, hidden_size, *base_hashes(self.metadata))

    def save(self, path: Path | str) -> None:
        """Write the GGUF file, atomically. Raises VectorError where the place cannot be written."""
        write_steering(path, self.architecture, OWN_KEYS, self.metadata, self._fill)

    def _fill(self, writer: Any) -> None:
        import gguf

        writer.add_type(gguf.GGUFType.ADAPTER)
        writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
        writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, self.alpha)
        writer.add_file_type(gguf.LlamaFileType.ALL_F32)
        for name, each in self.factors.items():
            for end, values in zip(_ENDS, (each.a, each.b), strict=True):
                writer.add_tensor(name + end, np.ascontiguousarray(values, dtype=np.float32))

    @classmethod
    def load(cls, path: Path | str) -> "Adapter":
        """Read a LoRA adapter of irm-lite or of llama.cpp's convert_lora_to_gguf.py.

        Raises VectorError where it is not one, or where llama.cpp would refuse it.
        """
        _require_gguf(Path(path))
        header = read_steering_header(path)
        if header.metadata.get("general.type") != "adapter" or header.metadata.get("adapter.type") != "lora":
            raise VectorError(f"{path} is {_kind(header)}, not a LoRA adapter", "give the adapter's .gguf")
        if _ACTIVATED in header.metadata:  # llama-server lets it work behind those tokens alone
            raise VectorError(f"{path} is an activated LoRA, for what follows certain tokens", "use it in llama-server")
        if sum(math.prod(tensor.shape) for tensor in header.tensors.values()) > _MAX_FLOATS:
            raise VectorError(f"{path} is larger than any adapter", "give the adapter's .gguf")
        alpha = _alpha(header)
        try:
            return cls(_factors(header), header.architecture, alpha, own_keys_of(header, OWN_KEYS))
        except VectorError as error:
            raise VectorError(f"{path}: {error}") from None


def _require_gguf(path: Path) -> None:
    """Raise VectorError for PEFT's files, which llama.cpp does not read, and for a folder, naming the .gguf in it."""
    if is_there(path) and path.is_dir():
        inside = next(iter(sorted(path.glob("*.gguf"))), None)
        raise VectorError(f"{path} is a folder", f"give the file in it, {inside}" if inside else f"an adapter of PEFT: {_CONVERT}")
    if path.name in _PEFT and is_file(path):
        raise VectorError(f"{path} is PEFT's, not llama.cpp's", _CONVERT)


def _kind(header: GgufHeader) -> str:
    """What a file is that is no LoRA adapter."""
    if header.metadata.get("general.type") == "adapter":
        return f"an adapter of type {str(header.metadata.get('adapter.type', 'unknown'))[:40]!r}"
    return "a control vector" if header.architecture == "controlvector" else f"a {header.architecture or 'nameless'} model"


def _require_sound(name: str, factors: Factors) -> None:
    a, b = factors.a, factors.b
    if a.ndim != 2 or b.ndim != 2 or a.shape[0] != b.shape[1] or a.shape[0] < 1:
        raise VectorError(f"{name}: factors of {a.shape} and {b.shape} do not go together", "export it again")
    if a.shape[0] > max(a.shape[1], b.shape[0]):  # beyond the smaller side it is wasteful, and people's k_proj have it
        raise VectorError(f"{name}: rank {a.shape[0]} is beyond what the map has ({a.shape[1]} to {b.shape[0]})", "ask for less")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise VectorError(f"{name} holds NaN or infinity", "export it again")


def _reader(path: Path) -> Any:
    """The package gguf's own reader, which knows what the header's does not keep."""
    import gguf

    try:
        return gguf.GGUFReader(path)
    except Exception as error:  # of many types, each of which means the same
        raise VectorError(f"{path} is damaged ({reason(error, 200)})", "export it again") from None


def _alpha(header: GgufHeader) -> float:
    """The file's alpha. llama.cpp ends the process where it is no float32; where there is none it takes the scale alone."""
    if _ALPHA not in header.metadata:
        raise VectorError(f"{header.path} has no {_ALPHA}", "convert it again by llama.cpp's convert_lora_to_gguf.py")
    kinds = _reader(header.path).fields[_ALPHA].types
    if [int(kind) for kind in kinds] != [int(ValueType.FLOAT32)]:
        raise VectorError(f"{header.path}: {_ALPHA} is no float32", "convert it again by llama.cpp's convert_lora_to_gguf.py")
    return float(header.metadata[_ALPHA])


def _factors(header: GgufHeader) -> dict[str, Factors]:
    import gguf

    found: dict[str, dict[str, FloatArray]] = {}
    tensors = {tensor.name: tensor for tensor in _reader(header.path).tensors}
    for name, info in header.tensors.items():
        end = next((end for end in _ENDS if name.endswith(end)), None)
        if name.startswith(_EMBEDDING):  # turned round in these files, and where the head is tied llama.cpp takes them for its
            raise VectorError("it changes the token embeddings", "train it on the blocks' linear maps alone")
        if end is None or len(info.shape) != 2:
            raise VectorError(f"tensor {name!r} is no factor of a linear map", "only plain LoRA adapters can be used")
        try:
            values = header.read_f32(name) if info.type == F32 else gguf.dequantize(tensors[name].data, tensors[name].tensor_type)
        except NotImplementedError:
            raise VectorError(f"tensor {name!r} is of a type that the package gguf cannot undo", "convert it as f32") from None
        found.setdefault(name.removesuffix(end), {})[end] = values.reshape(info.shape[::-1])
    for name, pair in found.items():
        if len(pair) != 2:
            raise VectorError(f"{name} has one factor of two", "convert it again")
    return {name: Factors(pair[_ENDS[0]], pair[_ENDS[1]]) for name, pair in found.items()}
