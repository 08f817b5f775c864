"""The fingerprint of a model that is loaded."""

import hashlib
from functools import reduce
from typing import TYPE_CHECKING, Any

import torch

from irm_lite.base.architecture import decoder_layers, final_norm, gguf_architecture, inner_decoder, module_of, text_config
from irm_lite.base.architectures import of_gguf
from irm_lite.base.fingerprint import Fingerprint, hash_norm_gains
from irm_lite.base.sources.gguf_graph import MAPPED
from irm_lite.base.sources.graph_facts import NONE, SHARED, as_text, digest_of_biases, shared_facts

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Keys of config.json that change the graph beside those of `shared_facts`, with the values that change nothing.
_GRAPH_KEYS: dict[str, tuple[Any, ...]] = {
    "attention_multiplier": (),
    "attn_logit_softcapping": (0.0,),
    "clip_qkv": (0.0,),
    "embedding_multiplier": (1.0,),
    "final_logit_softcapping": (0.0,),
    "hidden_act": ("silu",),
    "hidden_activation": ("silu",),
    "layer_types": (),
    "logit_scale": (1.0,),
    "logits_scaling": (1.0,),
    "no_rope_layers": (),
    "num_experts_per_tok": (),
    "num_local_experts": (),
    "query_pre_attn_scalar": (),
    "residual_multiplier": (1.0,),
    "sliding_window": (0,),
    "use_qk_norm": (False,),
}
_ORDINARY_ROPES = ("default", "linear", "yarn", "llama3")  # the same at every length: their frequencies say all


def fingerprint_model(model: "PreTrainedModel", quantisation: str | None = None) -> Fingerprint:
    """The same as that of a GGUF made from it. `quantisation` as training names it; None: what the model's configuration says."""
    layers = decoder_layers(model)
    quantisation = _quantisation(model) if quantisation is None else quantisation
    shape = gguf_architecture(model), len(layers), int(text_config(model).hidden_size)
    return Fingerprint(*shape, _weights(model), quantisation, graph_of_model(model))


def _weights(model: "PreTrainedModel") -> str:
    """The hash over its norms' gains as a GGUF has them; empty where they are not known to be the same there."""
    known = of_gguf(gguf_architecture(model))
    names = [name for _, name in known.norms] if known else ["input_layernorm", "post_attention_layernorm"]
    norms = [module_of(layer, name) for layer in decoder_layers(model) for name in names]
    found = [getattr(norm, "weight", None) for norm in (*norms, final_norm(model))]
    if not names or not all(isinstance(weight, torch.Tensor) for weight in found):
        return ""
    shift = known.shift if known else 0.0
    return hash_norm_gains([(weight.detach().float() + shift).cpu().numpy() for weight in found])  # type: ignore[union-attr]


def graph_of_model(model: "PreTrainedModel") -> str:
    """The facts of its graph (sources/graph_facts.py); of its configuration alone where such GGUFs are not mapped."""
    config: Any = text_config(model)
    facts: dict[str, object] = {}
    rope = _rope(model)
    if gguf_architecture(model) in MAPPED and rope is not None:
        head_size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        kv_heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        facts = shared_facts(config.num_attention_heads, kv_heads, head_size, config.rms_norm_eps, rope, _biases(model))
    return as_text({**facts, "config": _config_digest(config)})


def _config_digest(config: Any) -> str:
    values = {name: getattr(config, name, None) for name in _GRAPH_KEYS}
    kept = {name: value for name, value in values.items() if value is not None and value not in _GRAPH_KEYS[name]}
    if all(each == "full_attention" for each in kept.get("layer_types", ())):
        kept.pop("layer_types", None)
    kind = (getattr(config, "rope_parameters", None) or {}).get("rope_type", "default")
    if kind not in _ORDINARY_ROPES:
        kept["rope"] = kind
    return hashlib.sha256(repr(sorted(kept.items())).encode()).hexdigest()[:16] if kept else NONE


def _rope(model: Any) -> Any:
    """Radians a token (D/2,) in float64 and the factor of cosines and sines; None where the model has no single rotation."""
    rotary: Any = getattr(inner_decoder(model), "rotary_emb", None)
    frequencies = getattr(rotary, "original_inv_freq", None)
    if not isinstance(frequencies, torch.Tensor):
        return None
    if frequencies.is_meta or frequencies.dtype != torch.float32:  # spread over devices, or cast with the model's weights
        rotary = type(rotary)(config=model.config)
        frequencies = rotary.original_inv_freq
    return frequencies.double().cpu().numpy(), float(rotary.attention_scaling)


def _biases(model: "PreTrainedModel") -> str | None:
    """None where they are not at hand, or in float16, which does not hold bfloat16's small ones."""
    found = []
    for number, layer in enumerate(decoder_layers(model)):
        for slot, name in SHARED.items():
            bias = getattr(_at(layer, name), "bias", None)
            if bias is None:
                continue
            if bias.is_meta or bias.dtype == torch.float16:
                return None
            found.append((number, slot, bias.detach().float().cpu().numpy()))
    return digest_of_biases(found)


def _at(block: Any, name: str) -> Any:
    """A block's module by its dotted name; None where it has none, as experts have none of an MLP's."""
    return reduce(lambda found, part: getattr(found, part, None), name.split("."), block)


def _quantisation(model: "PreTrainedModel") -> str:
    """As training names it; empty where another library than bitsandbytes quantised the model."""
    config: Any = getattr(model.config, "quantization_config", None)
    if config is None:
        return "none"
    return "int8" if getattr(config, "load_in_8bit", False) else str(getattr(config, "bnb_4bit_quant_type", ""))
