"""The sizes of a base, read before anything is loaded: from a preset, a config.json or a GGUF's header."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from irm_lite.base.architectures import cuts, gguf_cuts
from irm_lite.base.presets import presets
from irm_lite.base.sources.folder import names_gguf
from irm_lite.base.sources.gguf_checks import MAX_LAYERS
from irm_lite.base.sources.gguf_graph import same_in_all_layers
from irm_lite.core.errors import BaseModelError
from irm_lite.core.files.gguf_header import GgufHeader, read_header, require_model
from irm_lite.core.files.paths import expanded, is_hub_id
from irm_lite.core.files.reading import read_json

SPARE = 1 << 24  # weights: so few too many cost little memory, and after loading the missing ones are named (require_whole)


EXPERT_COUNTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")  # a configuration's names for them


class UnknownShape(BaseModelError):
    """A configuration does not give the sizes that a Llama-like model's gives."""


@dataclass(frozen=True)
class BaseShape:
    """What the memory of a Llama-like base depends on."""

    layers: int
    hidden_size: int
    intermediate_size: int
    heads: int
    kv_heads: int
    head_size: int
    vocabulary: int
    tied: bool  # the head's weight is the embeddings'
    from_gguf: bool = False  # read weight by weight into memory, not mapped
    whole: bool = False  # no blocks can be left out, as step/frozen_prefix.py has it

    @property
    def block_matrices(self) -> tuple[int, ...]:
        """Weights of each matrix of a block: q, k, v, o, gate, up, down. bitsandbytes quantises them."""
        query, key = self.heads * self.head_size * self.hidden_size, self.kv_heads * self.head_size * self.hidden_size
        return (query, key, key, query, *[self.intermediate_size * self.hidden_size] * 3)

    @property
    def embedding(self) -> int:
        """Weights of the embeddings, and of an untied head."""
        return self.vocabulary * self.hidden_size

    @property
    def unquantised(self) -> int:
        """Weights that keep their number format: embeddings, head, norms' gains."""
        return self.embedding * (1 if self.tied else 2) + (2 * self.layers + 1) * self.hidden_size

    @property
    def parameters(self) -> int:
        """Of all weights; Qwen's biases on q, k and v, below a thousandth of them, are left out."""
        return self.layers * sum(self.block_matrices) + self.unquantised


def side_by_side(hidden_size: int) -> int:
    """How many answers a base of this hidden size writes at once. What a token takes on a CPU is the weights' way through memory,
    for one answer or many; but keys and values are held of each, with Llama 2 7B half a megabyte a token."""
    return 32 if hidden_size <= 2048 else 16


def base_shape(name: str) -> BaseShape:
    """The shape of the base called `name`, as `load_base` takes it; nothing is loaded or fetched.

    Raises BaseModelError or InputError where there is none on this machine, or its configuration is not a Llama-like model's.
    """
    preset = presets().get(name)
    if preset is not None:
        return BaseShape(
            preset.layers,
            preset.hidden_size,
            preset.intermediate_size,
            preset.heads,
            preset.kv_heads,
            preset.head_size or preset.hidden_size // preset.heads,
            preset.vocabulary,
            preset.tied,
            preset.package is not None,
            not cuts(preset.model_type),
        )
    path = expanded(name)
    if names_gguf(path):
        header = read_header(path)
        require_model(header)
        return shape_of_header(header)
    file = _config_file(name, path)
    return shape_of_config(_read_config(file), str(file))


def _config_file(name: str, path: Path) -> Path:
    from huggingface_hub import try_to_load_from_cache

    if (path / "config.json").is_file():
        return path / "config.json"
    if is_hub_id(name):
        cached = try_to_load_from_cache(name, "config.json")
        if isinstance(cached, str):
            return Path(cached)
    raise BaseModelError(
        f"the sizes of {name!r} are not known here",
        "give a preset (irm-lite models list), a folder with config.json or a .gguf file",
    )


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = read_json(path)
    except (OSError, ValueError) as error:
        raise BaseModelError(f"{path} is not readable JSON ({error})", "download or convert it again") from None
    return config if isinstance(config, dict) else {}


def shape_of_config(config: dict[str, Any], where: str, from_gguf: bool = False) -> BaseShape:
    """Of a transformers configuration. Raises BaseModelError, naming `where`, where its sizes are absurd; UnknownShape, which
    is one, unless it is a Llama-like model's."""
    if any(isinstance(count := config.get(name), int) and count > 1 for name in EXPERT_COUNTS):
        raise UnknownShape(
            f"{where} is a mixture of experts, whose memory is not predicted", "try it: what does not fit is refused"
        )
    try:
        heads, hidden_size = int(config["num_attention_heads"]), int(config["hidden_size"])
        shape = BaseShape(
            int(config["num_hidden_layers"]),
            hidden_size,
            int(config["intermediate_size"]),
            heads,
            int(config.get("num_key_value_heads") or heads),
            int(config.get("head_dim") or hidden_size // heads),
            int(config["vocab_size"]),
            bool(config.get("tie_word_embeddings", False)),
            from_gguf,
            not cuts(str(config.get("model_type")), config.get("layer_types")),
        )
    except (ValueError, KeyError, TypeError, ArithmeticError) as error:
        raise UnknownShape(
            f"{where} does not give a Llama-like model's sizes ({type(error).__name__}: {error})", "check its config.json"
        ) from None
    return _sound(shape, where)


def require_stored(config: dict[str, Any], folder: Path) -> None:
    """Raise BaseModelError where a transformers configuration describes far more weights than the folder's files can hold:
    transformers would allocate them all before it finds any missing."""
    try:
        weights = shape_of_config(config, str(folder)).parameters
    except UnknownShape:
        return
    stored = sum(file.stat().st_size for file in folder.glob("*.safetensors") if file.is_file())
    if stored and weights > 4 * stored + SPARE:  # half a byte a weight, and as much again for what is counted roughly
        raise BaseModelError(
            f"the configuration of {folder} describes {weights} weights, its files have {stored} bytes",
            "download or convert it again",
        )


def shape_of_header(header: GgufHeader) -> BaseShape:
    """Of a GGUF file. Raises BaseModelError or InputError where its metadata lack a size or give an absurd one."""

    def size(key: str, default: int | None = None) -> int:
        return header.integer(f"{header.architecture}.{key}", default)

    embeddings = header.tensors.get("token_embd.weight")
    if embeddings is None or len(embeddings.shape) != 2:
        raise BaseModelError(f"{header.path} has no token embeddings", "download or convert it again")
    heads, hidden_size = same_in_all_layers(header, "attention.head_count"), size("embedding_length")
    shape = BaseShape(
        size("block_count"),
        hidden_size,
        same_in_all_layers(header, "feed_forward_length"),
        heads,
        same_in_all_layers(header, "attention.head_count_kv", heads),
        size("attention.key_length", hidden_size // max(heads, 1)),
        embeddings.shape[1],
        "output.weight" not in header.tensors,
        from_gguf=True,
        whole=not gguf_cuts(header.architecture, size("attention.sliding_window", 0) > 0),
    )
    return _sound(shape, str(header.path))


def _sound(shape: BaseShape, where: str) -> BaseShape:
    sizes = (
        shape.layers,
        shape.hidden_size,
        shape.intermediate_size,
        shape.heads,
        shape.kv_heads,
        shape.head_size,
        shape.vocabulary,
    )
    if not all(0 < size < 2**24 for size in sizes) or shape.layers > MAX_LAYERS:
        raise BaseModelError(f"{where} gives absurd sizes ({', '.join(map(str, sizes))})", "check the file")
    return shape
