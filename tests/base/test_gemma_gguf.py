"""Gemma's GGUFs as a base: what no key of theirs says, and transformers would guess."""

from pathlib import Path

import pytest

from irm_lite.base.sources.gguf_weights import _gemma_scale
from irm_lite.core.files.gguf_header import read_header
from support.gguf_files import write_gguf


@pytest.mark.parametrize(
    ("architecture", "layers", "hidden", "heads", "key", "scalar"),
    [  # as in Google's configurations
        ("gemma3", 18, 640, 4, 256, 256),  # 270M
        ("gemma3", 34, 2560, 8, 256, 256),  # 4B
        ("gemma3", 62, 5376, 32, 128, 168),  # 27B
        ("gemma2", 42, 3584, 16, 256, 256),  # 9B
        ("gemma2", 46, 4608, 32, 128, 144),  # 27B
    ],
)
def test_the_attention_s_scale_is_that_of_the_size(
    architecture: str, layers: int, hidden: int, heads: int, key: int, scalar: int, tmp_path: Path
) -> None:
    fields = {"block_count": layers, "embedding_length": hidden, "attention.head_count": heads, "attention.key_length": key}
    file = write_gguf(tmp_path / "gemma.gguf", architecture, {}, {f"{architecture}.{name}": size for name, size in fields.items()})
    assert _gemma_scale(read_header(file)) == scalar
