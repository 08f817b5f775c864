"""Small models of the real architectures with random weights and a real SentencePiece tokenizer, made on the spot."""

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import sentencepiece
import torch
from torch import Tensor
from transformers import AutoTokenizer, LlamaConfig, MistralConfig, PreTrainedModel, Qwen2Config, Qwen3Config
from transformers.models.llama.modeling_llama import LlamaForCausalLM
from transformers.models.mistral.modeling_mistral import MistralForCausalLM
from transformers.models.qwen2.modeling_qwen2 import Qwen2ForCausalLM
from transformers.models.qwen3.modeling_qwen3 import Qwen3ForCausalLM

from irm_lite.data.dataset import load_dataset
from support.gguf_files import add_sizes, add_value, finish

VOCABULARY = 640
_CLASSES: dict[str, tuple[Any, Any]] = {
    "llama": (LlamaConfig, LlamaForCausalLM),
    "mistral": (MistralConfig, MistralForCausalLM),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM),
}


def tiny_model(kind: str = "llama", layers: int = 2, hidden_size: int = 64, seed: int = 0) -> PreTrainedModel:
    """A model with grouped-query attention and an untied head; norm gains are random, so that they tell models apart."""
    config_class, model_class = _CLASSES[kind]
    torch.manual_seed(seed)
    config = config_class(
        vocab_size=VOCABULARY,
        hidden_size=hidden_size,
        intermediate_size=2 * hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        bos_token_id=1,
        eos_token_id=2,
        tie_word_embeddings=False,
        initializer_range=0.08,  # large enough that layers really change the stream
    )
    model = model_class(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.uniform_(0.5, 1.5)
            elif name.endswith("bias"):
                parameter.normal_(0, 0.1)
    return model


def write_sentencepiece(folder: Path) -> Path:
    """Train Llama 2's kind of tokenizer (BPE, byte fallback, dummy prefix) on the shipped data."""
    dataset = load_dataset("neutral")
    texts = [text for each in dataset.train for text in (each.question, each.answer)]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_prefix=str(folder / "tokenizer"),
        model_type="bpe",
        vocab_size=VOCABULARY,
        byte_fallback=True,
        normalization_rule_name="identity",
        split_digits=True,
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=-1,
        minloglevel=2,
    )
    return folder / "tokenizer.model"


def write_hf_folder(folder: Path, kind: str = "llama", layers: int = 3, chat_template: str | None = None) -> Path:
    """A Hugging Face folder: config, safetensors, tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    tiny_model(kind, layers).save_pretrained(folder)
    write_sentencepiece(folder)
    settings = {
        "tokenizer_class": "LlamaTokenizer",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "add_bos_token": True,
        "legacy": False,
    }
    if chat_template:
        settings["chat_template"] = chat_template
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    AutoTokenizer.from_pretrained(folder).save_pretrained(folder)
    return folder


def write_gguf(
    folder: Path,
    target: Path,
    chat_template: str | None = None,
    architecture: str = "llama",
    extra: dict[str, np.ndarray[Any, Any]] | None = None,
    keys: dict[str, Any] | None = None,
    without: tuple[str, ...] = (),
) -> Path:
    """The model of a Hugging Face folder as an F32 GGUF, as llama.cpp's converter lays out the architecture.

    `extra` tensors are written too, as biases are; `keys` are added to the metadata, or stand in the place of theirs; keys and
    tensors that are named in `without` are left out.
    """
    kind = json.loads((folder / "config.json").read_text())["model_type"]
    model = _CLASSES[kind][1].from_pretrained(folder, dtype=torch.float32)
    config = model.config
    writer = gguf.GGUFWriter(target, architecture)
    head_size = add_sizes(writer, config)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(head_size)
    if kind == "qwen3":
        writer.add_key_length(head_size)
        writer.add_value_length(head_size)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    _write_tokenizer(writer, folder / "tokenizer.model")
    if chat_template:
        writer.add_chat_template(chat_template)
    for key, value in (keys or {}).items():
        writer.kv_data[0].pop(key, None)
        add_value(writer, key, value)
    for key in without:
        writer.kv_data[0].pop(key, None)
    ours = {name: np.ascontiguousarray(tensor.detach().float().numpy()) for name, tensor in _tensors(model)}
    for name, values in {**ours, **(extra or {})}.items():
        if name not in without:
            writer.add_tensor(name, values)
    finish(writer)
    return target


def _write_tokenizer(writer: gguf.GGUFWriter, path: Path) -> None:
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(path))
    kinds = []
    for index in range(pieces.vocab_size()):
        if pieces.is_unknown(index):
            kinds.append(gguf.TokenType.UNKNOWN)
        elif pieces.is_control(index):
            kinds.append(gguf.TokenType.CONTROL)
        elif pieces.is_byte(index):
            kinds.append(gguf.TokenType.BYTE)
        else:
            kinds.append(gguf.TokenType.NORMAL)
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([pieces.id_to_piece(index) for index in range(pieces.vocab_size())])
    writer.add_token_scores([pieces.get_score(index) for index in range(pieces.vocab_size())])
    writer.add_token_types(kinds)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)


def _tensors(model: PreTrainedModel) -> list[tuple[str, Tensor]]:
    config = model.config
    turned = config.model_type in ("llama", "mistral")  # which llama.cpp rotates as neighbours
    tensors = [
        ("token_embd.weight", model.model.embed_tokens.weight),
        ("output_norm.weight", model.model.norm.weight),
        ("output.weight", model.lm_head.weight),
    ]
    for number, layer in enumerate(model.model.layers):
        attention, mlp = layer.self_attn, layer.mlp
        tensors += [
            (f"blk.{number}.{name}.weight", tensor)
            for name, tensor in {
                "attn_norm": layer.input_layernorm.weight,
                "attn_q": _interleave(attention.q_proj.weight, config.num_attention_heads if turned else 0),
                "attn_k": _interleave(attention.k_proj.weight, config.num_key_value_heads if turned else 0),
                "attn_v": attention.v_proj.weight,
                "attn_output": attention.o_proj.weight,
                "ffn_norm": layer.post_attention_layernorm.weight,
                "ffn_gate": mlp.gate_proj.weight,
                "ffn_up": mlp.up_proj.weight,
                "ffn_down": mlp.down_proj.weight,
            }.items()
        ]
        for name, module in {"attn_q": attention.q_proj, "attn_k": attention.k_proj, "attn_v": attention.v_proj}.items():
            if module.bias is not None:
                tensors.append((f"blk.{number}.{name}.bias", module.bias))
        if config.model_type == "qwen3":
            tensors.append((f"blk.{number}.attn_q_norm.weight", attention.q_norm.weight))
            tensors.append((f"blk.{number}.attn_k_norm.weight", attention.k_norm.weight))
    return tensors


def _interleave(weight: Tensor, heads: int) -> Tensor:
    """From halves rotated together (transformers) to neighbours rotated together (ggml's NORM rope); of 0 heads as it is."""
    if heads == 0:
        return weight
    return weight.reshape(heads, 2, weight.shape[0] // heads // 2, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)
