"""What is read of single indices, from a folder and from a GGUF, against the loaded model's own weights."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from irm_lite.base.channels import ranks, read_channels
from irm_lite.base.load import Base
from irm_lite.core.errors import BaseModelError


@pytest.mark.parametrize("place", ["llama_folder", "llama_gguf"])
def test_against_the_loaded_model(place: str, llama_base: Base, request: pytest.FixtureRequest) -> None:
    found = read_channels(str(request.getfixturevalue(place)))
    model: Any = llama_base.model
    head = model.lm_head.weight.double().norm(dim=0).numpy()
    np.testing.assert_allclose(found["final gain"], model.model.norm.weight.double().abs().numpy(), rtol=1e-6)
    np.testing.assert_allclose(found["head"], head, rtol=1e-6)
    np.testing.assert_allclose(found["embedding"], model.model.embed_tokens.weight.double().norm(dim=0).numpy(), rtol=1e-6)
    np.testing.assert_allclose(found["head x final gain"], head * found["final gain"], rtol=1e-6)
    gains = [block.input_layernorm.weight.double().numpy() for block in model.model.layers]
    np.testing.assert_allclose(found["attention norms"], np.mean([gain / gain.mean() for gain in gains], axis=0), rtol=1e-6)


@pytest.mark.demo
def test_a_tied_head_is_read_once() -> None:
    found = read_channels("demo")
    assert "embedding" not in found
    assert all(values.shape == (576,) and (values > 0).all() for values in found.values())


def test_the_largest_is_first() -> None:
    assert ranks(np.array([3.0, 9.0, 1.0, 3.0])).tolist() == [2.5, 1, 4, 2.5]


def test_what_is_not_here_is_said(tmp_path: Path) -> None:
    with pytest.raises(BaseModelError, match="not on this machine"):
        read_channels("owner/model")
    with pytest.raises(BaseModelError):
        read_channels(str(tmp_path))
