"""Mixtures of experts, and what is no decoder: looked at before a weight is read.

transformers keeps the experts of a block in one tensor of three dimensions, and bitsandbytes quantises Linear layers alone. So
experts keep their number format where they fit, and a model whose experts do not fit is refused.
"""

from typing import TYPE_CHECKING, Any

from irm_lite.base.sources.shape import EXPERT_COUNTS
from irm_lite.core.errors import BaseModelError

if TYPE_CHECKING:
    from transformers import PretrainedConfig

_ROUTERS = ("gate", "router", "layer")  # Linear layers that choose the experts, where they are Linear at all


def require_decoder(config: "PretrainedConfig", where: str) -> None:
    """Raise BaseModelError where the configuration is an encoder-decoder's, or of what transformers loads no language model of."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

    if getattr(config, "is_encoder_decoder", False):
        raise BaseModelError(f"{where} is an encoder-decoder ({config.model_type})", "choose a decoder: irm-lite steers no others")
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise BaseModelError(
            f"{where} is a {config.model_type}, and transformers loads no language model of that by itself", "choose a text model"
        )


def has_experts(config: Any) -> bool:
    """Whether its blocks have experts to choose from."""
    text = config.get_text_config(decoder=True)
    return any(isinstance(count := getattr(text, name, None), int) and count > 1 for name in EXPERT_COUNTS)


def expert_weights(model: Any) -> int:
    """How many weights are in experts that are kept in one tensor a block."""
    return sum(weight.numel() for name, weight in model.named_parameters() if weight.dim() >= 3 and "expert" in name.lower())


def skeleton_of(config: "PretrainedConfig") -> Any:
    """The configuration's model on the meta device."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


def unquantised_parts(model: Any) -> list[str]:
    """The names of what is not to be quantised: the head, and the routers, which choose others where they are rounded."""
    from torch import nn

    routers = {
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and name.rpartition(".")[2] in _ROUTERS and "layers" in name
    }
    return ["lm_head", *sorted(routers)]


def require_room(weights: int, bytes_each: int, free: int, where: str) -> None:
    """Raise BaseModelError where that many weights of experts do not fit into `free` bytes."""
    wanted = weights * bytes_each
    if wanted > free:
        raise BaseModelError(
            f"the experts of {where} cannot be quantised by bitsandbytes, and take {wanted / 1e9:.1f} GB as they are "
            f"({free / 1e9:.1f} GB free)",
            "take a device with that much memory, or a dense model",
        )


def told_of_experts(model: Any, quant: str) -> str | None:
    """What is to be said of a quantised base with experts, in a line; None where there is nothing."""
    weights = expert_weights(model) if quant != "none" else 0
    if not weights:
        return None
    size = weights * model.dtype.itemsize / 1e9
    return f"the experts are not quantised, since bitsandbytes cannot: {weights} weights, {size:.2g} GB; the rest is {quant}"
