"""A base of Llama's architecture with random weights, for shapes whose weights are not at hand: speed and memory are the same."""

import torch
from torch import nn
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaForCausalLM, LlamaRotaryEmbedding

from irm_lite.architecture import decoder_layers
from irm_lite.base_model import Base, Quant, load_tokenizer
from irm_lite.device import decide, probe
from irm_lite.fingerprint import Fingerprint, hash_norm_gains
from irm_lite.gguf_base import keep_differentiable, quantise
from irm_lite.presets import EMBEDDED
from irm_lite.quiet import import_bitsandbytes


def random_base(shape: tuple[int, int], quant: Quant, dtype: str, device: str) -> Base:
    """A base of L layers and hidden size H, with the demo's tokenizer. Blocks are made and quantised one by one."""
    plan = decide(probe(), device, dtype, quant)
    if plan.quant != "none":
        import_bitsandbytes()
    tokenizer = load_tokenizer(EMBEDDED)
    config = _config(*shape, len(tokenizer))
    with torch.device("meta"):
        model = LlamaForCausalLM(config).to(getattr(torch, plan.dtype))
    torch.manual_seed(0)
    for block in decoder_layers(model):
        _fill(block, config, plan.device)
        if plan.quant != "none":
            quantise(nn.ModuleList([block]), plan, double_quant=False)
    for module in (model.model.embed_tokens, model.model.norm, model.lm_head):
        _fill(module, config, plan.device)
    model.model.rotary_emb = LlamaRotaryEmbedding(config).to(plan.device)
    model.requires_grad_(False)
    model.eval()
    keep_differentiable(model)
    gains = [parameter.float().cpu().numpy() for name, parameter in model.named_parameters() if "norm" in name]
    fingerprint = Fingerprint("llama", *shape, hash_norm_gains(gains), quant)
    return Base(f"llama-{shape[0]}x{shape[1]}-random", model, tokenizer, fingerprint, plan, None)


def _config(layers: int, hidden_size: int, vocabulary: int) -> LlamaConfig:
    """Llama 2's proportions; at 32 x 4096 its 7B shape, but for the vocabulary, which is the tokenizer's."""
    return LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden_size,
        intermediate_size=-(-8 * hidden_size // 3 // 256) * 256,
        num_hidden_layers=layers,
        num_attention_heads=hidden_size // (128 if hidden_size >= 1024 else 64),
        max_position_embeddings=4096,
        tie_word_embeddings=False,
    )


@torch.no_grad()
def _fill(module: nn.Module, config: LlamaConfig, device: str) -> None:
    """Give weights that are on no device yet a place and values."""
    module.to_empty(device=device)
    for parameter in module.parameters():
        if parameter.ndim == 1:
            parameter.fill_(1.0)  # a norm's gain
        else:
            parameter.normal_(std=config.initializer_range)
