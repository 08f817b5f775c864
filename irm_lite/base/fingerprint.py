"""Which base model is it? An identity that survives quantisation and file formats.

Norm gains are the one part of a Llama that every quantisation leaves alone: a hash over them, rounded to bfloat16 (the
coarsest type a checkpoint has them in), is the same for the Hugging Face folder and for each GGUF made from it, and
differs between a base and its full fine-tunes. (Adapters that leave the norms alone leave it alone too.)
What is computed with the weights is no part of it: files of the same gains with other rotary scalings, biases or scales are
told apart by their graph (sources/graph_facts.py).
"""

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from irm_lite.base.architectures import of_gguf
from irm_lite.base.sources.gguf_checks import KNOWN, MAX_LAYERS
from irm_lite.base.sources.graph_facts import bfloat16_bits, differing, graph_of_header
from irm_lite.core.errors import InputError, VectorError
from irm_lite.core.files.gguf_header import GgufHeader, read_header, require_model
from irm_lite.core.types import FloatArray

UNQUANTISED = ("none", "F32", "F16", "BF16")
BAKED = "irm.bake.sha256"  # the key by which a file is told that `bake` wrote
_MAX_HIDDEN_SIZE = 1 << 18  # the largest models have 18432


@dataclass(frozen=True)
class Match:
    """What to tell the user of something whose shape fits a model: at most one of two lines."""

    warning: str | None = None  # it was made on other weights
    note: str | None = None  # on these weights, quantised otherwise


@dataclass(frozen=True)
class Fingerprint:
    """Identity of a base. Shapes must agree for a vector to fit; `weights` tells whether it is the same model."""

    architecture: str  # GGUF's name for it: "llama", "qwen2"
    n_layers: int
    hidden_size: int
    weights: str  # SHA-256 over the norm gains, hex
    quantisation: str = ""  # informative: "nf4", "Q4_1"; no part of the identity
    graph: str = ""  # as sources/graph_facts.py writes it; empty: unknown, by an older irm-lite

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "Fingerprint":
        try:
            texts = data["architecture"], data["weights"], data.get("quantisation", ""), data.get("graph", "")
            sizes = int(data["n_layers"]), int(data["hidden_size"])
            if not all(isinstance(each, str) for each in texts) or not all(0 <= each < 2**63 for each in sizes):
                raise ValueError("a field has the wrong type, or a size is out of range")
            return cls(texts[0], *sizes, *texts[1:])
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
            raise InputError(f"a base's fingerprint is damaged ({error})") from None

    def match(self, made_on: "Fingerprint", what: str, name: str) -> Match:
        """What to tell the user where `what`, made on the base `made_on`, goes into this one, called `name`.

        Weights, a quantisation or a graph that are empty are unknown, and not compared. Raises VectorError where the shapes differ.
        """
        self.require_fit(made_on.architecture, made_on.n_layers, made_on.hidden_size, what)
        if made_on.weights and self.weights and made_on.weights != self.weights:
            return Match(warning=f"{what} was made on other weights than those of {name}: its effect may differ")
        if other := differing(self.graph, made_on.graph):
            return Match(
                warning=f"{what} was made on the same weights with other settings than {name} has ({', '.join(other)}): "
                "its effect may differ"
            )
        before, now = (_quantised(each.quantisation) for each in (made_on, self))
        if before and now and before != now:
            return Match(note=f"{what} was made on {before} weights, {name} has {now} ones: its effect may differ a little")
        return Match()

    def is_of(self, other: "Fingerprint") -> bool:
        """Whether both are of one model, quantised alike or not; a graph that one of them does not know is not compared."""
        return self.weights == other.weights and not differing(self.graph, other.graph)

    def require_fit(self, architecture: str, n_layers: int, hidden_size: int, what: str) -> None:
        """Raise VectorError where something made for the given shape cannot go into this base."""
        mine = (self.architecture, self.n_layers, self.hidden_size)
        if mine != (architecture, n_layers, hidden_size):
            raise VectorError(
                f"{what} was made for {architecture} with {n_layers} layers of {hidden_size}, "
                f"this model is {self.architecture} with {self.n_layers} layers of {self.hidden_size}",
                "use it with the model it was trained on",
            )


def _quantised(name: str) -> str:
    return "unquantised" if name in UNQUANTISED else name


def hash_norm_gains(gains: list[FloatArray]) -> str:
    """SHA-256 over norm gains, each (H,), in the order layer 0 attention, layer 0 MLP, layer 1 ..., final."""
    digest = hashlib.sha256()
    for gain in gains:
        digest.update(bfloat16_bits(gain).astype("<u2").tobytes())
    return digest.hexdigest()


def fingerprint_gguf(gguf: Path | GgufHeader) -> Fingerprint:
    """The fingerprint of a GGUF model file. Raises InputError where it is damaged or not a decoder-only model."""
    header = gguf if isinstance(gguf, GgufHeader) else read_header(gguf)
    require_model(header)
    architecture = header.architecture
    n_layers = header.integer(f"{architecture}.block_count") - header.integer(f"{architecture}.nextn_predict_layers", 0)
    hidden_size = header.integer(f"{architecture}.embedding_length")
    if not 0 < n_layers <= min(len(header.tensors), MAX_LAYERS):
        raise InputError(f"{header.path} says that it has {n_layers} layers, but holds fewer", "export it again")
    known = of_gguf(architecture)
    of_block = [name for name, _ in known.norms] if known else ["attn_norm", "ffn_norm"]
    norms = [f"blk.{n}.{norm}.weight" for n in range(n_layers) for norm in of_block] + ["output_norm.weight"]
    if not of_block or (architecture not in KNOWN and not all(name in header.tensors for name in norms)):
        return Fingerprint(architecture, n_layers, hidden_size, "", gguf_quantisation(header), graph_of_header(header))
    for name in norms:
        if name not in header.tensors:
            raise InputError(f"{header.path}: no {name!r} in this {architecture} file", "give a Llama-like model")
        if header.tensors[name].shape != (hidden_size,) or hidden_size > _MAX_HIDDEN_SIZE:
            raise InputError(f"{header.path}: {name} does not have the hidden size {hidden_size}", "download or convert it again")
    gains = [header.read_f32(name) for name in norms]
    weights, graph = hash_norm_gains(gains), graph_of_header(header)
    return Fingerprint(architecture, n_layers, hidden_size, weights, gguf_quantisation(header), graph)


def gguf_quantisation(header: GgufHeader) -> str:
    """The dominant quantisation of the file's layers by bytes, as ggml names it: 'Q4_1'."""
    from gguf import GGMLQuantizationType

    totals: dict[int, int] = {}
    for tensor in header.tensors.values():
        if tensor.name.startswith("blk."):  # a small model's embedding is large, and often kept finer
            totals[tensor.type] = totals.get(tensor.type, 0) + tensor.n_bytes
    return GGMLQuantizationType(max(totals, key=lambda kind: totals[kind])).name if totals else ""
