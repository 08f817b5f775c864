"""Files whose graph is llama's but for names and the order of rotary halves, baked as llama: in llama.cpp, beside the vector."""

import hashlib
import json
from pathlib import Path
from typing import Any

import gguf
import llama_cpp
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from irm_lite.cli import main as cli
from irm_lite.core.errors import InputError
from irm_lite.core.files.gguf_header import read_header
from irm_lite.core.log_probabilities import kl
from irm_lite.llamacpp import Runtime
from irm_lite.steering.control_vector import ControlVector
from irm_lite.vectors.as_llama import SAME_AS_LLAMA
from irm_lite.vectors.bake import bake, unbake
from irm_lite.vectors.biases import Biases
from support.tiny_models import write_gguf, write_hf_folder


def vectors(layers: tuple[int, ...]) -> dict[int, Any]:
    generator = np.random.default_rng(0)
    return {layer: (0.3 * generator.standard_normal(64)).astype(np.float32) for layer in layers}


def biases() -> Biases:
    return Biases("ffn_down", vectors((1, 2)), {"source": "test"})


def log_probs(path: Path, vector: ControlVector | None = None) -> torch.Tensor:
    ids = [int(token) for token in np.random.default_rng(1).integers(3, 600, 40)]
    with Runtime(path, n_ctx=64) as runtime:
        runtime.set_vector(vector)
        return F.log_softmax(torch.from_numpy(runtime.logits(ids)).double(), -1)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def requantised(source: Path, target: Path, kind: int) -> Path:
    options = llama_cpp.llama_model_quantize_default_params()
    options.ftype, options.pure, options.nthread = kind, True, 1
    assert llama_cpp.llama_model_quantize(str(source).encode(), str(target).encode(), options) == 0
    return target


@pytest.fixture(scope="module")
def qwen_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_hf_folder(tmp_path_factory.mktemp("qwen") / "qwen", "qwen2")


def named(architecture: str, folder: Path, target: Path) -> Path:
    """A random model of that architecture, with what its graph demands; long enough a rope that positions matter."""
    wide = {f"blk.{n}.attn_output.bias": value for n, value in vectors((0, 1, 2)).items()}
    extra = {"pangu-embedded": wide, "exaone": {"rope_freqs.weight": np.linspace(1, 8, 8, dtype=np.float32)}}
    return write_gguf(folder, target, architecture=architecture, extra=extra.get(architecture))


@pytest.mark.parametrize("architecture", SAME_AS_LLAMA)
def test_what_is_llama_but_for_names_and_halves_is_baked_as_llama(architecture: str, qwen_folder: Path, tmp_path: Path) -> None:
    original = named(architecture, qwen_folder, tmp_path / "model.gguf")
    before, vector = digest(original), ControlVector(vectors((1, 2)), architecture)
    bake(original, biases(), tmp_path / "baked.gguf")
    header = read_header(tmp_path / "baked.gguf")
    assert header.architecture == "llama"
    assert not any(key.startswith(f"{architecture}.") for key in header.metadata)
    expected, baked = log_probs(original, vector), log_probs(tmp_path / "baked.gguf")
    assert float(kl(expected, baked).max()) < 1e-6
    assert float(kl(log_probs(original), baked).mean()) > 1e-2
    unbake(tmp_path / "baked.gguf", tmp_path / "again.gguf")
    assert digest(tmp_path / "again.gguf") == before == digest(original)


def test_the_verb_says_so(qwen_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, vector, out = named("qwen2", qwen_folder, tmp_path / "model.gguf"), tmp_path / "v.gguf", tmp_path / "baked.gguf"
    ControlVector(vectors((1, 2)), "qwen2").save(vector)
    assert cli.run(["bake", str(vector), "--gguf", str(model), "-o", str(out)]) == 0
    assert "it is written as llama" in capsys.readouterr().out
    assert cli.run(["bake", str(vector), "--gguf", str(model), "-o", str(out), "--force", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["architecture"] == "llama"
    assert cli.run(["bake", "--undo", str(out), "-o", str(tmp_path / "again.gguf")]) == 0
    assert digest(tmp_path / "again.gguf") == digest(model)


def test_without_moving_the_rows_the_halves_would_be_rotated_wrongly(qwen_folder: Path, tmp_path: Path) -> None:
    """What the test above would not see, if rope did nothing in so small a model."""
    halves, neighbours = (named(each, qwen_folder, tmp_path / f"{each}.gguf") for each in ("qwen2", "internlm2"))
    assert float(kl(log_probs(halves), log_probs(neighbours)).mean()) > 1e-3


@pytest.mark.parametrize(
    "kind", [llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0, llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0, llama_cpp.LLAMA_FTYPE_MOSTLY_BF16]
)
def test_quantised_rows_are_moved_whole(kind: int, qwen_folder: Path, tmp_path: Path) -> None:
    plain = named("qwen2", qwen_folder, tmp_path / "model.gguf")
    original = requantised(plain, tmp_path / "small.gguf", kind)
    bake(original, biases(), tmp_path / "baked.gguf")
    old, new = gguf.GGUFReader(original), gguf.GGUFReader(tmp_path / "baked.gguf")
    moved = [number for head in range(4) for half in range(8) for number in (16 * head + half, 16 * head + half + 8)]
    stored = {tensor.name: tensor for tensor in new.tensors}
    for tensor in old.tensors:
        rows = tensor.data[moved[: len(tensor.data)]] if ".attn_q." in tensor.name or ".attn_k." in tensor.name else tensor.data
        assert rows.tobytes() == stored[tensor.name].data.tobytes(), tensor.name
    vector = ControlVector(vectors((1, 2)), "qwen2")
    expected, baked = log_probs(original, vector), log_probs(tmp_path / "baked.gguf")
    assert float(kl(expected, baked).max()) < 1e-6
    unbake(tmp_path / "baked.gguf", tmp_path / "again.gguf")
    assert digest(tmp_path / "again.gguf") == digest(original)


def test_what_llama_would_compute_otherwise_is_refused_by_name(qwen_folder: Path, tmp_path: Path) -> None:
    cases: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
        "which irm-lite does not map": ({"qwen2.attention.scale": 0.5}, {}),
        "qwen2.attention.some_day, which": ({"qwen2.attention.some_day": 1}, {}),
        "has keys of llama": ({"llama.block_count": 3}, {}),
        "rotates 8 of 16 values of a head": ({"qwen2.rope.dimension_count": 8}, {}),
        "the tensor output.bias, for which": ({}, {"output.bias": np.ones(640, np.float32)}),
        "the tensor blk.1.attn_qkv.weight, for": ({}, {"blk.1.attn_qkv.weight": np.ones((64, 64), np.float32)}),
        "does not hold heads of 16": ({}, {"blk.1.attn_q.bias": np.ones(60, np.float32)}),
    }
    for number, (expected, (keys, extra)) in enumerate(cases.items()):
        path = write_gguf(qwen_folder, tmp_path / f"{number}.gguf", architecture="qwen2", keys=keys, extra=extra)
        with pytest.raises(InputError, match=expected):
            bake(path, biases(), tmp_path / "out.gguf")
    assert not (tmp_path / "out.gguf").exists()
