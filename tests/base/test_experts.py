"""Mixtures of experts, encoder-decoders and models with a vision part, as load_base takes or refuses them."""

import json
from pathlib import Path

import pytest
import torch
from bitsandbytes.nn import Linear4bit
from transformers import Gemma3Config, Gemma3ForConditionalGeneration, Qwen2VLConfig, T5Config, T5ForConditionalGeneration

from irm_lite.base.load import load_base
from irm_lite.base.sources.experts import told_of_experts
from irm_lite.base.stream import stream_of
from irm_lite.core.errors import BaseModelError
from irm_lite.steering.injection import inject
from irm_lite.steering.irm import build_irm
from zoo.configs import SIZES, ZOO
from zoo.models import write_folder, write_tokenizer

pytestmark = pytest.mark.slow
OF = {tiny.name: tiny for tiny in ZOO}


@pytest.mark.parametrize("name", ["mixtral", "granitemoe", "jamba"])
def test_experts_and_routers_are_not_quantised_and_the_rest_is(name: str, tmp_path: Path) -> None:
    base = load_base(str(write_folder(OF[name], tmp_path / name)), quant="nf4", device="cpu")
    names = {each for each, module in base.model.named_modules() if isinstance(module, Linear4bit)}
    assert names
    assert not any("router" in each or each.endswith(".gate") or "lm_head" in each for each in names)
    experts = [weight for each, weight in base.model.named_parameters() if "expert" in each and weight.dim() == 3]
    assert experts
    assert all(weight.dtype == base.model.dtype and not weight.requires_grad for weight in experts)
    told = told_of_experts(base.model, "nf4")
    assert told is not None
    assert f"{sum(weight.numel() for weight in experts)} weights" in told


def test_experts_that_do_not_fit_are_refused_before_a_weight_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_folder(OF["mixtral"], tmp_path / "mixtral")
    monkeypatch.setattr("irm_lite.base.sources.quantised.free_bytes", lambda _device: 1000)
    with pytest.raises(
        BaseModelError, match="the experts of .*mixtral cannot be quantised by bitsandbytes, and take 0.0 GB"
    ) as refusal:
        load_base(str(folder), quant="nf4", device="cpu")
    assert refusal.value.exit_code == 2
    load_base(str(folder), quant="none", device="cpu")


def test_an_encoder_decoder_is_refused_in_a_line(tmp_path: Path) -> None:
    T5ForConditionalGeneration(T5Config(d_model=32, d_kv=16, d_ff=64, num_layers=2, num_heads=2, vocab_size=512)).save_pretrained(
        tmp_path
    )
    write_tokenizer(tmp_path)
    with pytest.raises(BaseModelError, match=r"is an encoder-decoder \(t5\): choose a decoder") as refusal:
        load_base(str(tmp_path), quant="none", device="cpu")
    assert "\n" not in str(refusal.value)


def test_a_vision_model_whose_text_part_does_not_load_alone_is_refused_in_a_line(tmp_path: Path) -> None:
    Qwen2VLConfig(text_config={"vocab_size": 512, "hidden_size": 32}).save_pretrained(tmp_path)
    write_tokenizer(tmp_path)
    with pytest.raises(BaseModelError, match=r"is a qwen2_vl, .* by itself: choose a text model") as refusal:
        load_base(str(tmp_path), quant="none", device="cpu")
    assert "\n" not in str(refusal.value)


@torch.no_grad()
def test_the_text_part_of_a_vision_model_is_steered(tmp_path: Path) -> None:
    sizes = {**SIZES, "head_dim": 16, "query_pre_attn_scalar": 16, "vocab_size": 512}
    vision = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 28,
        "patch_size": 14,
    }
    config = Gemma3Config(text_config=sizes, vision_config=vision, mm_tokens_per_image=4, image_token_index=500)
    Gemma3ForConditionalGeneration(config).save_pretrained(tmp_path)
    write_tokenizer(tmp_path)
    assert "vision_config" in json.loads((tmp_path / "config.json").read_text())
    base = load_base(str(tmp_path), quant="none", device="cpu")
    assert (base.fingerprint.architecture, stream_of(base.model).h0, base.n_layers) == ("gemma3", "attn", 3)
    irm = build_irm("static", 64, (1, 2), "block")
    irm.vectors.normal_()  # type: ignore[operator]
    ids = torch.tensor([[5, 6, 7]])
    plain = base.model(ids).logits
    with inject(base.model, irm):
        assert not torch.allclose(base.model(ids).logits, plain)
    assert torch.equal(base.model(ids).logits, plain)
