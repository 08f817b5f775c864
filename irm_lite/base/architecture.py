"""Which models can be injected: any decoder whose blocks add self_attn's output to the residual stream unchanged."""

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from irm_lite.core.errors import BaseModelError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Hugging Face's model_type -> GGUF's general.architecture, where the two differ.
_GGUF_NAMES = {"mistral": "llama"}


def gguf_architecture(model: "PreTrainedModel") -> str:
    """GGUF's name for the model's architecture: Llama and Mistral are both 'llama' there."""
    model_type = str(model.config.model_type)
    return _GGUF_NAMES.get(model_type, model_type)


def decoder_layers(model: nn.Module) -> nn.ModuleList:
    """The decoder blocks, 0-based. Raises BaseModelError, by name, where the model has none with `self_attn`."""
    layers = getattr(getattr(model, "model", None), "layers", None)
    if not isinstance(layers, nn.ModuleList) or not all(hasattr(layer, "self_attn") for layer in layers):
        raise BaseModelError(
            f"{type(model).__name__} cannot be injected", "irm-lite needs a decoder with model.layers[i].self_attn"
        )
    return layers


class _Seen(Exception):
    """Ends the probe's forward as soon as layer 0 has been looked at."""


def require_injectable(model: "PreTrainedModel") -> None:
    """Raise BaseModelError unless layer 0's MLP norm reads exactly (block input + attention output).

    Blocks that scale or normalise the attention's output first (Gemma 2, Granite), or run attention and MLP in
    parallel (Phi, Cohere), fail this. It runs layer 0 on two tokens and stops there.
    """
    import torch

    layer: Any = decoder_layers(model)[0]
    norm = getattr(layer, "post_attention_layernorm", None)
    refusal = BaseModelError(
        f"{type(model).__name__} does not add its attention's output to the residual stream as Llama does",
        "choose a Llama, Mistral, Qwen2 or SmolLM2 model",
    )
    if norm is None:
        raise refusal
    seen: dict[str, Tensor] = {}

    def enter(_module: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> None:
        seen["input"] = block_input(args, kwargs)

    def attended(_module: nn.Module, _args: object, output: object) -> None:
        seen["attention"] = hidden_state(output)

    def reached_mlp(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
        seen["stream"] = args[0]
        raise _Seen

    handles = [
        layer.register_forward_pre_hook(enter, with_kwargs=True),
        layer.self_attn.register_forward_hook(attended),
        norm.register_forward_pre_hook(reached_mlp),
    ]
    try:
        with torch.no_grad():
            hidden = torch.linspace(-1, 1, 2 * model.config.hidden_size, dtype=model.dtype, device=model.device)
            model(inputs_embeds=hidden.view(1, 2, -1), use_cache=False)
    except _Seen:
        pass
    finally:
        for handle in handles:
            handle.remove()
    if seen.keys() != {"input", "attention", "stream"} or not torch.equal(seen["input"] + seen["attention"], seen["stream"]):
        raise refusal


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
