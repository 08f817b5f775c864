"""Rows of a GGUF, by llama.cpp's routines and in the order and format of the model: against the package gguf and torch."""

from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from bitsandbytes import functional
from transformers.modeling_gguf_pytorch_utils import LlamaTensorProcessor

from irm_lite.base.load import load_base
from irm_lite.base.sources import gguf_rows
from irm_lite.base.sources.gguf_rows import Bytes, dequantise, unpacked
from irm_lite.base.sources.gguf_weights import gguf_weights, skeleton
from irm_lite.core.files.gguf_header import read_header
from irm_lite.core.types import FloatArray
from support.gguf_files import write_gguf as write_tensors

QUANTISED = ["F16", "Q4_0", "Q4_1", "Q5_0", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ2_XXS", "MXFP4"]


def random_rows(kind: gguf.GGMLQuantizationType, rows: int, blocks: int) -> Bytes:
    return np.random.default_rng(3).integers(0, 256, (rows, blocks * gguf.GGML_QUANT_SIZES[kind][1]), dtype=np.uint8)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # random scales may be infinite
@pytest.mark.parametrize("name", QUANTISED)
def test_the_bits_are_the_package_ggufs(name: str) -> None:
    kind = gguf.GGMLQuantizationType[name]
    stored = random_rows(kind, 7, 5)
    expected = gguf.dequantize(stored, kind).astype(np.float32)
    found = np.empty_like(expected)
    dequantise(stored, int(kind), found)
    assert np.isfinite(expected).mean() > 0.5
    np.testing.assert_array_equal(found, expected)  # NaN equals NaN
    finite = np.isfinite(expected)
    assert (found[finite].view(np.int32) == expected[finite].view(np.int32)).all()


def test_what_llamacpp_gives_other_bits_of_is_left_to_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    kind = gguf.GGMLQuantizationType.Q8_0
    real: Callable[..., FloatArray] = gguf.dequantize
    assert gguf_rows._of_llamacpp(int(kind)) is not None
    gguf_rows._of_llamacpp.cache_clear()
    monkeypatch.setattr(gguf, "dequantize", lambda stored, number: np.nextafter(real(stored, number), np.float32(np.inf)))
    try:
        assert gguf_rows._of_llamacpp(int(kind)) is None
        found = np.empty((2, 32), np.float32)
        stored = random_rows(kind, 2, 1)
        dequantise(stored, int(kind), found)
        np.testing.assert_array_equal(found, np.nextafter(real(stored, kind), np.float32(np.inf)))
    finally:
        gguf_rows._of_llamacpp.cache_clear()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("threads", [1, 2])
def test_rows_come_in_another_order_and_format(
    dtype: torch.dtype, threads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gguf_rows, "_PIECE", 1000)
    monkeypatch.setattr(gguf_rows, "_ROUNDED", 300)
    chance = np.random.default_rng(0)
    values = chance.normal(size=(37, 96)).astype(np.float32)
    path = write_tensors(tmp_path / "t.gguf", "llama", {"matrix": values}, types={"matrix": int(gguf.GGMLQuantizationType.F32)})
    places = chance.permutation(37)
    expected = torch.empty(37, 96)
    expected[places] = torch.from_numpy(values)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        part = read_header(path).tensors["matrix"]
        assert torch.equal(unpacked(path, part, dtype, places), expected.to(dtype))
        assert torch.equal(unpacked(path, part, dtype, np.arange(37)), torch.from_numpy(values).to(dtype))
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_a_base_has_the_bits_of_whole_matrices_in_float32(dtype: str, llama_gguf: Path) -> None:
    """Dequantised whole by the package gguf, laid out, rounded, and quantised by bitsandbytes itself."""
    base = load_base(str(llama_gguf), device="cpu", dtype=dtype)
    held = base.model.state_dict()
    empty = skeleton(llama_gguf)
    layout = LlamaTensorProcessor(config=empty.config.to_dict())
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(llama_gguf).tensors}
    checked = 0
    for name, weight in gguf_weights(llama_gguf, empty).items():
        if isinstance(weight, torch.Tensor) or len(weight.parts[0].shape) != 2:
            continue
        part = tensors[weight.parts[0].name]
        dense = gguf.dequantize(np.array(part.data), part.tensor_type)
        laid_out = torch.from_numpy(np.ascontiguousarray(layout.process(dense, part.name).weights)).to(getattr(torch, dtype))
        if held[name].dtype == torch.uint8:
            packed, state = functional.quantize_4bit(laid_out, quant_type="nf4", blocksize=64)
            assert torch.equal(held[name], packed), name
            assert torch.equal(held[f"{name}.absmax"], state.absmax), name
            checked += 1
        else:
            assert torch.equal(held[name], laid_out), name
    assert checked >= 14
