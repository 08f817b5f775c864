"""What is read of single indices, from a folder and from a GGUF, against the loaded model's own weights."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from irm_lite.base import channels
from irm_lite.base.channels import ranks, read_channels
from irm_lite.base.load import Base
from irm_lite.base.norms import gain_of_final, gains_at
from irm_lite.core.errors import BaseModelError
from zoo.configs import ZOO
from zoo.models import write_folder


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


@pytest.mark.parametrize("name", ["gemma2", "nemotron", "olmo2", "llama"])
def test_gains_are_those_that_multiply_by_any_name(name: str, tmp_path: Path) -> None:
    """Gemma and Nemotron store them less one; Gemma has two norms around its MLP; OLMo 2 reads its stream through none."""
    folder = write_folder(next(each for each in ZOO if each.name == name), tmp_path / name)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        for part, values in model.named_parameters():
            if values.dim() == 1:
                values.copy_(torch.rand(values.shape, generator=torch.Generator().manual_seed(len(part))))
    model.save_pretrained(folder)
    found = read_channels(str(folder))
    np.testing.assert_allclose(found["final gain"], gain_of_final(model).detach().numpy(), rtol=1e-6)
    assert ("MLP norms" in found, "attention norms" in found) == ((name != "olmo2",) * 2)
    if name != "olmo2":
        gains = [gain.detach().numpy() for gain in gains_at(model, "attn")]
        np.testing.assert_allclose(found["MLP norms"], np.mean([gain / gain.mean() for gain in gains], axis=0), rtol=1e-5)


@pytest.mark.demo
def test_a_tied_head_is_read_once() -> None:
    found = read_channels("demo")
    assert "embedding" not in found
    assert all(values.shape == (576,) and (values > 0).all() for values in found.values())


def test_the_largest_is_first() -> None:
    assert ranks(np.array([3.0, 9.0, 1.0, 3.0])).tolist() == [2.5, 1, 4, 2.5]


def test_a_gguf_that_transformers_does_not_read_is_said(llama_gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_gguf: Path) -> None:
        raise ValueError("GGUF model with architecture olmo2 is not supported yet.")  # transformers 5.24's words

    monkeypatch.setattr(channels, "skeleton", refuse)
    with pytest.raises(BaseModelError, match="transformers reads no GGUF of the architecture"):
        channels.read_channels(str(llama_gguf))


@pytest.mark.parametrize(
    ("name", "values", "said"),
    [
        ("model.norm.weight", torch.ones(10), r"model.norm.weight of .* has shape \(10,\), which fits no model"),
        ("model.norm.weight", torch.ones(64, 64), r"has shape \(64, 64\)"),
        ("model.layers.1.input_layernorm.weight", torch.ones(10), r"has shape \(10,\)"),
        ("model.embed_tokens.weight", torch.ones(64), r"has shape \(64,\)"),
        ("lm_head.weight", torch.ones(640, 32), r"has shape \(640, 32\)"),
        ("model.norm.weight", torch.full((64,), torch.nan), "NaN or infinity in what .* has for its final gain"),
        ("model.layers.1.input_layernorm.weight", torch.full((64,), torch.inf), "for its attention norms"),
    ],
)
def test_weights_that_fit_no_model_are_told(llama_folder: Path, tmp_path: Path, name: str, values: Tensor, said: str) -> None:
    """They were an unexpected error, and NaN a table of nan."""
    with pytest.raises(BaseModelError, match=said):
        read_channels(str(_with(llama_folder, tmp_path / "bad", {name: values})))


def test_a_norm_without_gains_does_not_count(llama_folder: Path, tmp_path: Path) -> None:
    names = [each for each in load_file(llama_folder / "model.safetensors") if each.endswith("input_layernorm.weight")]
    quiet = _with(llama_folder, tmp_path / "quiet", {names[0]: torch.zeros(64)})
    gains = [load_file(quiet / "model.safetensors")[each].double().abs().numpy() for each in names[1:]]
    np.testing.assert_allclose(
        read_channels(str(quiet))["attention norms"], np.mean([gain / gain.mean() for gain in gains], axis=0), rtol=1e-6
    )
    silent = _with(llama_folder, tmp_path / "silent", dict.fromkeys(names, torch.zeros(64)))
    assert "attention norms" not in read_channels(str(silent))


def _with(folder: Path, target: Path, changed: dict[str, Tensor]) -> Path:
    """A copy of a model's folder with other weights."""
    shutil.copytree(folder, target)
    weights = {**load_file(folder / "model.safetensors"), **{name: values.clone() for name, values in changed.items()}}
    save_file(weights, target / "model.safetensors", metadata={"format": "pt"})
    return target


def test_what_is_not_here_is_said(tmp_path: Path) -> None:
    with pytest.raises(BaseModelError, match="not on this machine"):
        read_channels("owner/model")
    with pytest.raises(BaseModelError):
        read_channels(str(tmp_path))
