"""The fingerprint of a model that is loaded, and what is to be said of what is injected into it."""

import warnings
from typing import TYPE_CHECKING, Any

from irm_lite.architecture import decoder_layers, gguf_architecture
from irm_lite.control_vector import ControlVector
from irm_lite.errors import OtherBaseWarning
from irm_lite.fingerprint import Fingerprint, Fit, hash_norm_gains

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from irm_lite.irm import IRM


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
    fit = Fit()
    if isinstance(steering, ControlVector):
        if steering.metadata.get("base.weights"):
            fit = steering.require_fit(fingerprint_model(model), "this model")
    elif steering.made_on is not None:
        fit = fingerprint_model(model).fit(steering.made_on, "the IRM", "this model")
    for line in filter(None, (fit.warning, fit.note)):
        warnings.warn(line, OtherBaseWarning, stacklevel=4)  # where `with inject(...)` stands
