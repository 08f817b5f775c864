"""The parts of a decoder, whatever its architecture calls them: its blocks, its final norm, its configuration."""

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from irm_lite.base.architectures import TABLE
from irm_lite.core.errors import BaseModelError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_INNER = ("language_model", "text_model", "decoder")  # of a model with several parts, the one that decodes
_LISTS = ("layers", "h", "blocks")
_NORMS = ("norm", "final_layernorm", "final_layer_norm", "ln_f", "norm_f", "embedding_norm")


def text_config(model: nn.Module) -> Any:
    """The configuration of the model's decoder."""
    config: Any = model.config
    return config.get_text_config(decoder=True) if hasattr(config, "get_text_config") else config


def gguf_architecture(model: "PreTrainedModel") -> str:
    """GGUF's name for the model's architecture: Llama and Mistral are both 'llama' there."""
    model_type = str(text_config(model).model_type)
    return TABLE[model_type].gguf if model_type in TABLE else model_type


def inner_decoder(model: nn.Module) -> nn.Module:
    """The module that holds the blocks and gives the final, normed hidden states."""
    inner: Any = getattr(model, str(getattr(model, "base_model_prefix", "") or "model"), model)
    return next((part for name in _INNER if isinstance(part := getattr(inner, name, None), nn.Module)), inner)


def decoder_layers(model: nn.Module) -> nn.ModuleList:
    """The decoder blocks, 0-based. Raises BaseModelError, by name, where the model is no decoder with a list of blocks."""
    return getattr(inner_decoder(model), list_of_blocks(model))  # type: ignore[no-any-return]


def list_of_blocks(model: nn.Module) -> str:
    """The name of the decoder's list of blocks. Raises as `decoder_layers` does."""
    config: Any = getattr(model, "config", None)
    if getattr(config, "is_encoder_decoder", False):
        raise BaseModelError(
            f"{type(model).__name__} is an encoder-decoder", "irm-lite steers decoders: choose a causal language model"
        )
    inner = inner_decoder(model)
    for name in _LISTS:
        if isinstance(blocks := getattr(inner, name, None), nn.ModuleList) and len(blocks) > 0:
            return name
    raise BaseModelError(f"{type(model).__name__} cannot be injected", "irm-lite needs a decoder with a list of blocks")


def final_norm(model: nn.Module) -> nn.Module:
    """The norm before the head. Raises BaseModelError where it is not found."""
    inner = inner_decoder(model)
    for name in _NORMS:
        if isinstance(norm := getattr(inner, name, None), nn.Module):
            return norm
    raise BaseModelError(f"{type(model).__name__} has no final norm that irm-lite knows", "choose another model")


def module_of(block: nn.Module, name: str) -> nn.Module | None:
    """A block's module of this name; None where it has none."""
    found = getattr(block, name, None)
    return found if isinstance(found, nn.Module) else None


def block_input(args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> Tensor:
    """The residual stream (B, T, H) that a decoder block was called with."""
    return args[0] if args else kwargs["hidden_states"]


def hidden_state(output: object) -> Tensor:
    """The hidden state (B, T, H) of a module's output, which may be a tuple that starts with it."""
    first = output[0] if isinstance(output, tuple) else output
    assert isinstance(first, Tensor)
    return first


def with_hidden_state(output: object, replacement: Tensor) -> object:
    """The module output with its hidden state replaced."""
    return (replacement, *output[1:]) if isinstance(output, tuple) else replacement
