"""What a model's blocks do with the residual stream: from the table of architectures, or, of one that is not in it, by a probe.

Site `block` needs a list of blocks that hand the stream on. Site `attn` needs a module whose output is added to it before the MLP.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal
from weakref import WeakKeyDictionary

from torch import nn

from irm_lite.base.architecture import decoder_layers, module_of, text_config
from irm_lite.base.architectures import TABLE, Architecture
from irm_lite.base.probe import probe_attention, probe_chain
from irm_lite.core.errors import BaseModelError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_streams: "WeakKeyDictionary[nn.Module, Stream]" = WeakKeyDictionary()


@dataclass(frozen=True)
class Stream:
    """How a model's blocks treat the residual stream. `known`: its line in the table; None where it was probed."""

    known: Architecture | None
    attn: tuple[str, ...]  # as in the table; empty: only site `block`
    reads: str
    multiplier: float = 1.0
    packed: bool = False
    cut: bool = False

    @property
    def h0(self) -> Literal["attn", "block"]:
        """Where an IRM reads its input: layer 0's stream after attention, or what comes out of block 0."""
        return "attn" if self.attn else "block"

    @property
    def attn_norm(self) -> str:
        """Of a block's module that normalises the stream for its attention, the name; empty where none does."""
        return self.known.attn_norm if self.known else "input_layernorm"

    def attention(self, block: nn.Module) -> nn.Module:
        """The module of a block whose output, times `multiplier`, is added to the stream before the MLP."""
        for name in self.attn:
            if (found := module_of(block, name)) is not None:
                return found
        raise BaseModelError(f"{type(block).__name__} has no place between attention and MLP", "take --site block")


def stream_of(model: nn.Module) -> Stream:
    """The model's stream, found once: by its line in the table, else by a probe on two tokens."""
    if model not in _streams:
        config = text_config(model)
        known = TABLE.get(str(config.model_type))
        if known is not None and getattr(config, known.side_by_side_if, False):
            known = known.beside()
        if known is not None:
            factor = float(getattr(config, known.multiplier)) if known.multiplier else 1.0
            stream = Stream(known, known.attn, known.reads, factor, known.packed, known.cut)
        else:
            stream = _as_llama(model) or Stream(None, (), "")
        _streams[model] = stream
    return _streams[model]


def require_injectable(model: "PreTrainedModel") -> None:
    """Raise BaseModelError unless the model's blocks treat the stream as it is believed of them. It runs block 0 on two tokens; of
    an architecture that is not in the table and not Llama's the whole model."""
    blocks = decoder_layers(model)
    stream = stream_of(model)
    if stream.attn:
        if not probe_attention(model, stream.attention(blocks[0]), module_of(blocks[0], stream.reads), stream.multiplier):
            raise BaseModelError(
                f"{type(model).__name__} does not add its attention's output to the residual stream as its architecture does",
                "check that its configuration is its own",
            )
    else:
        probe_chain(model, whole=stream.known is None)


def require_site(model: nn.Module, site: str) -> None:
    """Raise BaseModelError where the model has no place for this site."""
    if site == "attn" and not stream_of(model).attn:
        raise BaseModelError(
            f"{type(model).__name__} has no place between attention and MLP, where site attn adds", "take --site block"
        )


def _as_llama(model: Any) -> Stream | None:
    """The stream of a model that is not in the table and treats it as Llama does; None where it does not."""
    block = decoder_layers(model)[0]
    attention, norm = module_of(block, "self_attn"), module_of(block, "post_attention_layernorm")
    if attention is None or norm is None or not probe_attention(model, attention, norm, 1.0):
        return None
    return Stream(None, ("self_attn",), "post_attention_layernorm")
