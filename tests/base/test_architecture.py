"""Which models are taken, and which are refused, by name."""

import pytest
import torch
from transformers import AutoModel, AutoModelForCausalLM, BertConfig, GPT2Config, T5Config, T5ForConditionalGeneration

from irm_lite.base.architecture import decoder_layers, gguf_architecture
from irm_lite.base.stream import require_injectable, require_site
from irm_lite.core.errors import BaseModelError
from support.tiny_models import tiny_model


@pytest.mark.parametrize(("kind", "name"), [("llama", "llama"), ("mistral", "llama"), ("qwen2", "qwen2")])
def test_llama_like_models_are_taken_and_left_without_hooks(kind: str, name: str) -> None:
    model = tiny_model(kind)
    require_injectable(model)
    require_site(model, "attn")
    assert gguf_architecture(model) == name
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_what_is_no_decoder_is_refused_by_name() -> None:
    torch.manual_seed(0)
    sizes = {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2, "vocab_size": 64}
    with pytest.raises(BaseModelError, match="T5ForConditionalGeneration is an encoder-decoder") as refusal:
        decoder_layers(T5ForConditionalGeneration(T5Config(**sizes)))
    assert refusal.value.exit_code == 2
    bert = AutoModel.from_config(
        BertConfig(vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64)
    )
    with pytest.raises(BaseModelError, match="BertModel cannot be injected"):
        decoder_layers(bert)


def test_site_attn_is_refused_where_attention_and_mlp_run_side_by_side() -> None:
    from transformers import PhiConfig

    sizes = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = AutoModelForCausalLM.from_config(PhiConfig(**sizes))
    require_site(model, "block")
    with pytest.raises(BaseModelError, match="PhiForCausalLM has no place between attention and MLP.*--site block"):
        require_site(model, "attn")
    require_site(AutoModelForCausalLM.from_config(GPT2Config(vocab_size=64, n_embd=32, n_layer=2, n_head=2)), "attn")
