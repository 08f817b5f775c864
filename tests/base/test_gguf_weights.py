"""A GGUF read weight by weight, against transformers' own loading of the whole file and bitsandbytes' functions on that."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from bitsandbytes import functional
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel, Qwen3MoeConfig
from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeForCausalLM
from transformers.utils.quantization_config import GgufConfig

from irm_lite.base.load import load_base
from irm_lite.base.sources.gguf_rows import unpacked
from irm_lite.base.sources.gguf_weights import gguf_weights, skeleton
from irm_lite.core.errors import BaseModelError
from irm_lite.core.files.gguf_header import read_header
from support.gguf_files import write_gguf as write_tensors
from support.tiny_models import tiny_model, write_gguf, write_hf_folder


def whole(path: Path, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """As transformers loads it: every weight dense, at once."""
    return AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=dtype, quantization_config=GgufConfig(dequantize=True)
    )


def assert_quantised_alike(model: nn.Module, dense: nn.Module, quant: str) -> None:
    """Every weight of `model` is bit for bit what bitsandbytes makes of the dense one."""
    expected = dense.state_dict()
    linears = 0
    for name, module in model.named_modules():
        weight: Any = getattr(module, "weight", None)
        if weight is None:
            continue
        full: Tensor = expected[f"{name}.weight"]
        if quant in ("nf4", "fp4") and hasattr(weight, "quant_state"):
            packed, state = functional.quantize_4bit(full, quant_type=quant)
            assert torch.equal(weight.data, packed), name
            assert torch.equal(weight.quant_state.absmax, state.absmax), name
            linears += 1
        elif quant == "int8" and hasattr(weight, "SCB"):
            integers, scales, _ = functional.int8_vectorwise_quant(full.half())
            assert torch.equal(weight.data, integers), name
            kept: Any = module.state.SCB if weight.SCB is None else weight.SCB  # the first forward moves it
            assert torch.equal(kept, scales), name
            linears += 1
        else:
            assert torch.equal(weight, full), name
            assert weight.dtype == full.dtype
        if getattr(module, "bias", None) is not None:
            assert torch.equal(module.bias, expected[f"{name}.bias"]), name
    assert linears == (0 if quant == "none" else 7 * len(model.model.layers))  # type: ignore[union-attr, arg-type]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("quant", ["nf4", "fp4", "int8", "none"])
def test_a_llama_is_the_same_bit_for_bit(quant: str, dtype: str, llama_gguf: Path) -> None:
    base = load_base(str(llama_gguf), quant=quant, dtype=dtype, device="cpu")  # type: ignore[arg-type]
    assert_quantised_alike(base.model, whole(llama_gguf, getattr(torch, dtype)), quant)


@pytest.mark.parametrize("quant", ["nf4", "none"])
def test_a_mistral_is_the_same_bit_for_bit(quant: str, tmp_path: Path) -> None:
    folder = write_hf_folder(tmp_path / "mistral", "mistral", layers=2)
    path = write_gguf(folder, tmp_path / "mistral.gguf", chat_template="x")
    base = load_base(str(path), quant=quant, dtype="float32", device="cpu")  # type: ignore[arg-type]
    assert_quantised_alike(base.model, whole(path), quant)


def write_any(path: Path, model: PreTrainedModel, architecture: gguf.MODEL_ARCH, fields: dict[str, Any], q8: str = "") -> Path:
    """A GGUF of a model whose weights llama.cpp's converter only renames; those that end in `q8` are Q8_0."""
    config, name = model.config, gguf.MODEL_ARCH_NAMES[architecture]
    names = gguf.get_tensor_name_map(architecture, config.num_hidden_layers)
    tensors: dict[str, Any] = {}
    for key, tensor in model.state_dict().items():
        if key.endswith("experts.gate_up_proj"):
            block = key.split(".")[2]
            tensors[f"blk.{block}.ffn_gate_exps.weight"], tensors[f"blk.{block}.ffn_up_exps.weight"] = tensor.chunk(2, dim=1)
        else:
            tensors[names.get_name(key, (".weight", ".bias")) + ("" if key.endswith((".weight", ".bias")) else ".weight")] = tensor
    kinds = {key: gguf.GGMLQuantizationType.Q8_0 for key in tensors if q8 and key.endswith(q8)}
    shape = {
        "block_count": config.num_hidden_layers,
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": config.num_key_value_heads,
        "attention.layer_norm_rms_epsilon": config.rms_norm_eps,
        "rope.freq_base": 10000.0,
        "vocab_size": config.vocab_size,
        **fields,
    }
    arrays = {key: tensor.detach().contiguous().numpy() for key, tensor in tensors.items()}
    return write_tensors(path, name, arrays, {f"{name}.{key}": value for key, value in shape.items()}, kinds)


def read_all(path: Path) -> dict[str, Tensor]:
    return {name: weight[...] for name, weight in gguf_weights(path, skeleton(path)).items()}


def test_biases_and_quantised_tensors_of_a_qwen2(tmp_path: Path) -> None:
    model = tiny_model("qwen2")
    path = write_any(tmp_path / "qwen2.gguf", model, gguf.MODEL_ARCH.QWEN2, {}, q8="ffn_down.weight")
    ours, theirs = read_all(path), whole(path).state_dict()
    assert ours.keys() == theirs.keys()
    assert any(name.endswith("q_proj.bias") for name in ours)
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name]), name
        assert torch.equal(tensor, model.state_dict()[name]) is not name.endswith("down_proj.weight")


def test_fused_experts_of_a_qwen3_moe(tmp_path: Path) -> None:
    """Two tensors of the file make one weight of the model."""
    torch.manual_seed(0)
    config = Qwen3MoeConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=64,
        moe_intermediate_size=768,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        num_experts=4,
        num_experts_per_tok=2,
        max_position_embeddings=64,
    )
    model = Qwen3MoeForCausalLM(config)
    fields = {"expert_count": 4, "expert_used_count": 2, "expert_feed_forward_length": 768, "attention.key_length": 8}
    path = write_any(tmp_path / "moe.gguf", model, gguf.MODEL_ARCH.QWEN3MOE, fields)
    ours, theirs = read_all(path), whole(path).state_dict()
    assert any(name.endswith("experts.gate_up_proj") for name in ours)
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name]), name
        assert torch.equal(tensor, model.state_dict()[name]), name


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q4_0", "Q8_0"])
def test_a_tensor_read_in_pieces_is_the_tensor_read_at_once(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("irm_lite.base.sources.gguf_rows._PIECE", 1000)
    chance, number = np.random.default_rng(0), gguf.GGMLQuantizationType[kind]
    tensors = {"row": chance.normal(size=64), "matrix": chance.normal(size=(37, 96)), "experts": chance.normal(size=(3, 5, 64))}
    given = {name: values.astype(np.float32) for name, values in tensors.items()}
    path = write_tensors(tmp_path / "t.gguf", "llama", given, types=dict.fromkeys(given, int(number)))
    read = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for name, info in read_header(path).tensors.items():
            expected = gguf.dequantize(np.array(read[name].data), number)
            found = unpacked(path, info)
            assert found.shape == given[name].shape
            assert found.numpy().tobytes() == expected.astype(np.float32).tobytes()
    finally:
        torch.set_num_threads(threads)


def test_a_file_that_lacks_a_weight_is_refused_by_its_name(llama_gguf: Path, tmp_path: Path) -> None:
    lacking = tmp_path / "lacking.gguf"
    lacking.write_bytes(llama_gguf.read_bytes().replace(b"blk.1.ffn_down.weight", b"blk.1.ffn_d0wn.weight"))
    with pytest.raises(BaseModelError, match=r"has the tensor blk\.1\.ffn_d0wn\.weight, which irm-lite does not map") as refusal:
        load_base(str(lacking), quant="nf4", device="cpu")
    assert str(lacking) in str(refusal.value)
    lacking.write_bytes(llama_gguf.read_bytes().replace(b"blk.1.ffn_up.weight", b"blk.7.ffn_up.weight"))
    with pytest.raises(BaseModelError, match=r"lacks 1 weights, model.layers.1.mlp.up_proj.weight among them"):
        load_base(str(lacking), quant="nf4", device="cpu")


@pytest.mark.parametrize("quant", ["nf4", "int8", "none"])
def test_a_weight_of_another_shape_is_refused(quant: str, llama_folder: Path, tmp_path: Path) -> None:
    path = write_gguf(llama_folder, tmp_path / "short.gguf", chat_template="x")
    blob = bytearray(path.read_bytes())
    info = read_header(path).tensors["blk.0.ffn_up.weight"]
    name = info.name.encode()
    at = blob.index(len(name).to_bytes(8, "little") + name) + 8 + len(name) + 4 + 8  # its second dimension
    assert int.from_bytes(blob[at : at + 8], "little") == info.shape[1]
    blob[at : at + 8] = (info.shape[1] // 2).to_bytes(8, "little")
    path.write_bytes(blob)
    with pytest.raises(BaseModelError) as refusal:
        load_base(str(path), quant=quant, device="cpu")  # type: ignore[arg-type]
    assert f"llama.cpp cannot read the vocabulary of {path}" in str(refusal.value)  # tensors have to follow one another


@pytest.mark.parametrize("quant", ["nf4", "int8", "none"])
def test_of_a_folder_too(quant: str, llama_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    shutil.copytree(llama_folder, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "intermediate_size": 192}))
    with pytest.raises(BaseModelError) as refusal:
        load_base(str(folder), quant=quant, device="cpu")  # type: ignore[arg-type]
    assert f"{folder}: model.layers.0.mlp.down_proj.weight is (64, 128), its configuration says (64, 192)" in str(refusal.value)


def test_a_type_without_a_reader_is_refused(llama_folder: Path, tmp_path: Path) -> None:
    path = write_gguf(llama_folder, tmp_path / "odd.gguf", chat_template="x")
    blob = bytearray(path.read_bytes())
    name = b"blk.0.ffn_up.weight"
    at = blob.index(len(name).to_bytes(8, "little") + name) + 8 + len(name) + 4 + 2 * 8
    blob[at : at + 4] = int(gguf.GGMLQuantizationType.I32).to_bytes(4, "little")
    path.write_bytes(blob)
    with pytest.raises(BaseModelError) as refusal:
        load_base(str(path), quant="nf4", device="cpu")
    assert f"{path} would crash llama.cpp (blk.0.ffn_up.weight is of type 26" in str(refusal.value)
    assert "\n" not in str(refusal.value)


_LOAD = """
import sys
from irm_lite.base.load import load_base
from irm_lite.core.machine.memory import peak_bytes, reset_peak
load_base(sys.argv[1], quant="nf4", dtype="float32", device="cpu")  # imports, and what a first forward sets up
reset_peak("cpu")
before = peak_bytes("cpu")
model = load_base(sys.argv[2], quant="nf4", dtype="bfloat16", device="cpu").model
held = sum(each.numel() * each.element_size() for each in [*model.parameters(), *model.buffers()])
print(peak_bytes("cpu") - before, held)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
def test_loading_peaks_at_the_quantised_model_and_a_few_tensors(llama_gguf: Path, tmp_path: Path) -> None:
    """300 MB of float32 (150 MB in bfloat16), never held: bitsandbytes' own buffers are some five times the largest tensor."""
    model = tiny_model(hidden_size=768, layers=16)
    folder = write_hf_folder(tmp_path / "large")
    model.save_pretrained(folder)
    path = write_gguf(folder, tmp_path / "large.gguf", chat_template="x")
    size = path.stat().st_size
    assert size > 250e6
    done = subprocess.run([sys.executable, "-c", _LOAD, str(llama_gguf), str(path)], capture_output=True, text=True, check=True)
    peak, held = map(int, done.stdout.split())
    largest = 4 * 2 * 768 * 768  # bytes in float32
    assert held + 10 * largest < size / 2  # the bound below lies under the dense model in bfloat16
    assert peak < held + 10 * largest


@pytest.mark.demo
@pytest.mark.parametrize("quant", ["nf4", "none"])
def test_the_demo_model_is_the_same_bit_for_bit(quant: str, demo_gguf: Path) -> None:
    base = load_base("demo", quant=quant, dtype="bfloat16", device="cpu")  # type: ignore[arg-type]
    assert_quantised_alike(base.model, whole(demo_gguf, torch.bfloat16), quant)
