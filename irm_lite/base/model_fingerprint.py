"""The fingerprint of a model that is loaded, and what is to be said of what is injected into it."""

import warnings
from typing import TYPE_CHECKING, Any

from irm_lite.base.architecture import decoder_layers, gguf_architecture
from irm_lite.base.fingerprint import Fingerprint, Match, hash_norm_gains
from irm_lite.core.errors import OtherBaseWarning
from irm_lite.steering.control_vector import ControlVector

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from irm_lite.steering.irm import IRM


def fingerprint_model(model: "PreTrainedModel", quantisation: str | None = None) -> Fingerprint:
    """The same as that of a GGUF made from it. `quantisation` as training names it; None: what the model's configuration says."""
    layers = decoder_layers(model)
    norms = [norm for layer in layers for norm in (layer.input_layernorm, layer.post_attention_layernorm)]
    gains = [norm.weight.detach().float().cpu().numpy() for norm in [*norms, model.model.norm]]
    quantisation = _quantisation(model) if quantisation is None else quantisation
    return Fingerprint(gguf_architecture(model), len(layers), int(model.config.hidden_size), hash_norm_gains(gains), quantisation)


def _quantisation(model: "PreTrainedModel") -> str:
    """Empty where it is of a library that irm-lite does not use."""
    config: Any = getattr(model.config, "quantization_config", None)
    if config is None:
        return "none"
    return "int8" if getattr(config, "load_in_8bit", False) else str(getattr(config, "bnb_4bit_quant_type", ""))


def warn_of_other_base(model: "PreTrainedModel", steering: "IRM | ControlVector") -> None:
    """Issue an OtherBaseWarning where an IRM or a vector was made on other weights than this model's, or quantised otherwise.

    Raises VectorError where it was made for another shape. Of what does not say what it was made on nothing is known.
    """
    match = Match()
    if isinstance(steering, ControlVector):
        if steering.metadata.get("base.weights"):
            match = steering.require_fit(fingerprint_model(model), "this model")
    elif steering.made_on is not None:
        match = fingerprint_model(model).match(steering.made_on, "the IRM", "this model")
    for line in filter(None, (match.warning, match.note)):
        warnings.warn(line, OtherBaseWarning, stacklevel=4)  # where `with inject(...)` stands
