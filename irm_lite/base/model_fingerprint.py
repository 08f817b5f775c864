"""The fingerprint of a model that is loaded."""

from typing import TYPE_CHECKING, Any

from irm_lite.base.architecture import decoder_layers, gguf_architecture
from irm_lite.base.fingerprint import Fingerprint, hash_norm_gains

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def fingerprint_model(model: "PreTrainedModel", quantisation: str | None = None) -> Fingerprint:
    """The same as that of a GGUF made from it. `quantisation` as training names it; None: what the model's configuration says."""
    layers = decoder_layers(model)
    norms = [norm for layer in layers for norm in (layer.input_layernorm, layer.post_attention_layernorm)]
    gains = [norm.weight.detach().float().cpu().numpy() for norm in [*norms, model.model.norm]]
    quantisation = _quantisation(model) if quantisation is None else quantisation
    return Fingerprint(gguf_architecture(model), len(layers), int(model.config.hidden_size), hash_norm_gains(gains), quantisation)


def _quantisation(model: "PreTrainedModel") -> str:
    """As training names it; empty where another library than bitsandbytes quantised the model."""
    config: Any = getattr(model.config, "quantization_config", None)
    if config is None:
        return "none"
    return "int8" if getattr(config, "load_in_8bit", False) else str(getattr(config, "bnb_4bit_quant_type", ""))
