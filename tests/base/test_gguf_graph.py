"""What of a GGUF changes the graph is mapped or refused by name: the same ids through llama.cpp and through transformers."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from irm_lite.base.load import load_base
from irm_lite.base.sources.gguf_graph import read_graph
from irm_lite.core.errors import IrmLiteError
from irm_lite.core.files.gguf_header import read_header
from support.both_runtimes import HEADS, HIDDEN, KV_HEADS, LAYERS, bias, divergence, everywhere
from support.gguf_files import Array
from support.tiny_models import write_gguf


def scaling(**values: Any) -> dict[str, Any]:
    return {f"llama.rope.scaling.{key}": value for key, value in values.items()}


FACTORS = {"rope_freqs.weight": np.linspace(1, 8, HIDDEN // HEADS // 2).astype(np.float32)}
MAPPED: dict[str, tuple[dict[str, Any], dict[str, Array]]] = {
    "plain": ({}, {}),
    "attention biases": ({}, everywhere("attn_q", "attn_k", "attn_v", "attn_output")),
    "MLP biases": ({}, everywhere("ffn_gate", "ffn_up", "ffn_down")),
    "a bias in one layer": ({}, bias("ffn_down", 1)),
    "linear rope": (scaling(type="linear", factor=4.0), {}),
    "linear rope, the old key": ({"llama.rope.scale_linear": 3.0}, {}),
    "linear by default": (scaling(factor=2.0), {}),
    "no rope scaling whatever the factor": (scaling(type="none", factor=4.0), {}),
    "yarn": (scaling(type="yarn", factor=4.0, original_context_length=128), {}),
    "yarn with a factor of attention": (scaling(type="yarn", factor=8.0, original_context_length=64, attn_factor=1.3), {}),
    "Llama 3's factors": ({}, FACTORS),
    "factors and a linear scaling": (scaling(type="linear", factor=2.0), FACTORS),
    "another base": ({"llama.rope.freq_base": 500000.0}, {}),
    "heads a layer at a time": ({"llama.attention.head_count_kv": [KV_HEADS] * LAYERS}, {}),
    "a name that looks like a family": ({"general.name": "mistral of mine"}, {}),
    "a window that llama.cpp does not heed": ({"llama.attention.sliding_window": 16}, {}),
    "a vocabulary size of before": ({"llama.vocab_size": 600}, {}),
}


@pytest.mark.parametrize("name", MAPPED)
def test_both_runtimes_make_one_model_of_it(name: str, llama_folder: Path, tmp_path: Path) -> None:
    keys, tensors = MAPPED[name]
    assert divergence(write_gguf(llama_folder, tmp_path / "a.gguf", "{{ 1 }}", extra=tensors, keys=keys)) < 1e-6


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("attention.scale", 0.5),
        ("attention.clamp_kqv", 8.0),
        ("attn_logit_softcapping", 50.0),
        ("final_logit_softcapping", 30.0),
        ("logit_scale", 0.25),
        ("residual_scale", 0.22),
        ("embedding_scale", 12.0),
        ("rope.scaling.type", "longrope"),
        ("attention.head_count_kv", [2, 1, 2]),
    ],
)
def test_what_is_not_mapped_is_refused_by_its_name(key: str, value: Any, llama_folder: Path, tmp_path: Path) -> None:
    gguf = write_gguf(llama_folder, tmp_path / "a.gguf", "{{ 1 }}", keys={f"llama.{key}": value})
    with pytest.raises(IrmLiteError, match=r"longrope|layers differ in them" if isinstance(value, str | list) else key):
        load_base(str(gguf), quant="none", dtype="float32", device="cpu")


@pytest.mark.parametrize(
    ("keys", "tensors", "message"),
    [
        ({"llama.attention.layer_norm_rms_epsilon": 1}, {}, "layer_norm_rms_epsilon is not a float32 number"),
        ({"llama.attention.layer_norm_rms_epsilon": 0.0}, {}, "no positive llama.attention.layer_norm_rms_epsilon"),
        ({"llama.rope.freq_base": 1.0, **scaling(type="yarn", factor=2.0)}, {}, "a rope base of 1"),
        ({}, {"rope_freqs.weight": -np.ones(8, np.float32)}, "8 positive factors"),
        ({}, {"blk.0.attn_q.bias": np.ones((2, HIDDEN), np.float32)}, "not a row of numbers"),
    ],
)
def test_what_makes_no_graph_is_refused_in_one_line(
    keys: dict[str, Any], tensors: dict[str, Array], message: str, llama_folder: Path, tmp_path: Path
) -> None:
    gguf = write_gguf(llama_folder, tmp_path / "a.gguf", "{{ 1 }}", extra=tensors, keys=keys)
    with pytest.raises(IrmLiteError, match=message):
        load_base(str(gguf), quant="none", dtype="float32", device="cpu")


def test_a_tensor_without_a_place_is_refused_by_its_name(llama_folder: Path, tmp_path: Path) -> None:
    gguf = write_gguf(llama_folder, tmp_path / "a.gguf", "{{ 1 }}", extra={"blk.1.attn_q.scale": np.ones(1, np.float32)})
    with pytest.raises(IrmLiteError, match=r"blk\.1\.attn_q\.scale"):
        load_base(str(gguf), quant="none", dtype="float32", device="cpu")


def test_unknown_keys_are_named(llama_folder: Path, tmp_path: Path) -> None:
    gguf = write_gguf(llama_folder, tmp_path / "a.gguf", "{{ 1 }}", keys={"llama.of_tomorrow": 7, "other.key": 1})
    graph = read_graph(read_header(gguf))
    assert graph is not None
    assert graph.unknown == ("llama.of_tomorrow",)


@pytest.mark.parametrize(
    ("keys", "parameters"),
    [
        ({}, {"rope_type": "default"}),
        (scaling(type="linear", factor=4.0), {"rope_type": "linear", "factor": 4.0}),
        (
            scaling(type="yarn", factor=4.0, original_context_length=128),
            {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128},
        ),
    ],
)
def test_frequencies_are_transformers_own(
    keys: dict[str, Any], parameters: dict[str, Any], llama_folder: Path, tmp_path: Path
) -> None:
    graph = read_graph(read_header(write_gguf(llama_folder, tmp_path / "a.gguf", keys=keys)))
    config = LlamaConfig(
        hidden_size=HIDDEN,
        num_attention_heads=HEADS,
        max_position_embeddings=512,
        rope_parameters={"rope_theta": 10000.0, **parameters},
    )
    if parameters["rope_type"] == "default":
        expected, scale = 10000.0 ** -(torch.arange(0, 16, 2) / 16), 1.0
    else:
        expected, scale = ROPE_INIT_FUNCTIONS[parameters["rope_type"]](config, torch.device("cpu"))
    assert graph is not None
    torch.testing.assert_close(torch.from_numpy(graph.rope.inv_freq).float(), expected.float(), rtol=1e-6, atol=0)
    assert graph.rope.scaling == pytest.approx(scale)
