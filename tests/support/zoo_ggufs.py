"""GGUFs of tiny models of several architectures, without the converter of llama.cpp: names by the package gguf, the rest here."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from irm_lite.base.architecture import gguf_architecture, text_config
from irm_lite.base.architectures import TABLE
from support.gguf_files import add_sizes, finish
from support.tiny_models import VOCABULARY, _interleave, _write_tokenizer, write_sentencepiece
from zoo.configs import ZOO
from zoo.models import tiny_model, write_tokenizer

_NEIGHBOURS = ("llama", "granite", "arcee", "olmo", "smollm3")  # GGUF's names of those that llama.cpp rotates as neighbours
ARCHITECTURES = (
    *("llama", "qwen2", "qwen3", "gemma", "phi3", "granite", "olmo", "smollm3"),
    *("seed_oss", "starcoder2", "stablelm", "nemotron", "arcee", "phi"),
    *("gemma2", "gemma3", "olmo2", "exaone4"),
)


def write_zoo(name: str, place: Path) -> tuple[Path, Path]:
    """A tiny model of the zoo, with the tests' SentencePiece vocabulary: its Hugging Face folder and its F32 GGUF."""
    tiny = next(each for each in ZOO if each.name == name)
    model = tiny_model(replace(tiny, sizes={**tiny.sizes, "vocab_size": VOCABULARY}))
    folder = place / name
    model.save_pretrained(folder)
    write_tokenizer(folder)
    target = place / f"{name}.gguf"
    architecture = gguf_architecture(model)
    writer = gguf.GGUFWriter(target, architecture)
    _write_keys(writer, text_config(model), architecture)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    _write_tokenizer(writer, write_sentencepiece(place))
    for key, values in _tensors(model, architecture).items():
        writer.add_tensor(key, np.ascontiguousarray(values))
    finish(writer)
    return folder, target


def _write_keys(writer: gguf.GGUFWriter, config: Any, architecture: str) -> None:
    head_size = add_sizes(writer, config)
    writer.add_vocab_size(config.vocab_size)
    writer.add_key_length(head_size)
    writer.add_value_length(head_size)
    rope = config.rope_parameters
    rope = rope.get("full_attention", rope)  # Gemma 3 turns its windows by another base, llama.cpp's default for it
    writer.add_rope_freq_base(rope["rope_theta"])
    writer.add_rope_dimension_count(int(head_size * rope.get("partial_rotary_factor", 1.0)))
    writer.add_layer_norm_rms_eps(getattr(config, "rms_norm_eps", 1e-5))
    epsilons = (getattr(config, name, None) for name in ("layer_norm_eps", "norm_epsilon", "norm_eps"))
    writer.add_layer_norm_eps(next((each for each in epsilons if each is not None), 1e-5))
    match architecture:
        case "granite":
            writer.add_attention_scale(config.attention_multiplier)
            writer.add_embedding_scale(config.embedding_multiplier)
            writer.add_residual_scale(config.residual_multiplier)
            writer.add_logit_scale(config.logits_scaling)
        case "stablelm":
            writer.add_parallel_residual(config.use_parallel_residual)
        case "gemma2" | "gemma3":
            writer.add_sliding_window(config.sliding_window)
            if architecture == "gemma2":
                writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
                writer.add_final_logit_softcapping(config.final_logit_softcapping)
        case "lfm2":
            writer.add_shortconv_l_cache(config.conv_L_cache)
        case "phi3":
            writer.add_rope_scaling_orig_ctx_len(config.max_position_embeddings)


def _tensors(model: Any, architecture: str) -> dict[str, Any]:
    kinds: dict[str, Any] = {name: kind for kind, name in gguf.MODEL_ARCH_NAMES.items()}
    config = text_config(model)
    known = gguf.get_tensor_name_map(kinds[architecture], config.num_hidden_layers)
    shift = TABLE[str(config.model_type)].shift
    found = {}
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        ours = known.get_name(name, try_suffixes=(".weight", ".bias"))
        assert ours is not None, name
        values = tensor.float()
        if architecture in _NEIGHBOURS and ".q_proj.weight" in name:
            values = _interleave(values, config.num_attention_heads)
        elif architecture in _NEIGHBOURS and ".k_proj.weight" in name:
            values = _interleave(values, config.num_key_value_heads)
        elif "norm" in name and name.endswith("weight"):
            values = values + shift
        elif name.endswith("conv.conv.weight"):  # of each channel alone
            values = values[:, 0]
        found[ours] = values.numpy()
    return found
