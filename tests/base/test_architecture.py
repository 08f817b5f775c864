"""Which models are refused, by name, and which are not."""

from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, Gemma2Config, GPT2Config, GraniteConfig, PhiConfig

from irm_lite.base.architecture import decoder_layers, gguf_architecture, require_injectable
from irm_lite.core.errors import BaseModelError
from support.tiny_models import tiny_model

SMALL = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}


@pytest.mark.parametrize(("kind", "name"), [("llama", "llama"), ("mistral", "llama"), ("qwen2", "qwen2")])
def test_llama_like_models_are_taken_and_left_without_hooks(kind: str, name: str) -> None:
    model = tiny_model(kind)
    require_injectable(model)
    assert gguf_architecture(model) == name
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize(
    "config",
    [
        Gemma2Config(**SMALL, num_key_value_heads=1, head_dim=16),  # normalises attention's output before the residual add
        GraniteConfig(**SMALL, residual_multiplier=0.2),  # scales it
        PhiConfig(**SMALL),  # attention and MLP in parallel
        GPT2Config(vocab_size=64, n_embd=32, n_layer=2, n_head=2),  # no self_attn
    ],
    ids=["gemma2", "granite", "phi", "gpt2"],
)
def test_models_with_another_residual_stream_are_refused_by_name(config: Any) -> None:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    with pytest.raises(BaseModelError, match=type(model).__name__) as refusal:
        decoder_layers(model)
        require_injectable(model)
    assert refusal.value.exit_code == 2
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
