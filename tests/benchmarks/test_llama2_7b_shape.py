"""benchmarks/llama2_7b_shape.py: the file that it makes, and what a step's peak is measured of. The whole way is run by hand."""

import argparse
import sys
from pathlib import Path

import gguf
import numpy as np
import pytest

import llama2_7b_shape as shape
from irm_lite.base.sources.gguf_checks import require_loadable
from irm_lite.base.sources.shape import base_shape
from irm_lite.core.files.gguf_header import read_header


def test_the_file_is_a_llama_of_the_shape_with_the_vocabulary(llama_gguf: Path, tmp_path: Path) -> None:
    options = argparse.Namespace(layers=2, hidden=128, feed_forward=352, heads=4)
    path = tmp_path / "model.gguf"
    shape.write_model(path, llama_gguf, options)
    header, words = read_header(path), read_header(llama_gguf)
    require_loadable(header)
    found = base_shape(str(path))
    assert (found.layers, found.hidden_size, found.intermediate_size, found.heads, found.tied) == (2, 128, 352, 4, False)
    tokens = "tokenizer.ggml.tokens"
    assert header.read_strings(header.metadata[tokens]) == words.read_strings(words.metadata[tokens])
    assert header.metadata["tokenizer.ggml.add_bos_token"] is True


def test_the_weights_are_as_wide_as_a_trained_models() -> None:
    stored = shape.random_q4_0(np.random.default_rng(0), 256, 1024)
    values = gguf.dequantize(stored, gguf.GGMLQuantizationType.Q4_0)
    assert values.shape == (256, 1024)
    assert values.std() == pytest.approx(0.02, rel=0.05)


@pytest.mark.skipif(sys.platform == "win32", reason="os.wait4")
def test_a_steps_peak_is_that_of_its_process() -> None:
    small, large = (shape.measured([sys.executable, "-c", f"x = bytearray({size}); print('done')"]) for size in (1, 200_000_000))
    assert large["peak_bytes"] - small["peak_bytes"] == pytest.approx(200e6, rel=0.05)
    assert (large["exit"], large["printed"]) == (0, ["done"])
    assert shape.measured([sys.executable, "-c", "raise SystemExit(3)"])["exit"] == 3
