"""A base of Llama's architecture with random weights, for shapes whose weights are not at hand: speed and memory are the same."""

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from irm_lite.base.fingerprint import Fingerprint, hash_norm_gains
from irm_lite.base.load import Base, Quant, load_tokenizer
from irm_lite.base.packed_attention import attend_by_sample
from irm_lite.base.presets import EMBEDDED
from irm_lite.base.sources.quantised import quantisation
from irm_lite.core.machine.bitsandbytes_layout import keep_differentiable
from irm_lite.core.machine.device import decide, probe
from irm_lite.core.machine.onednn import keep_few_kernels
from irm_lite.core.machine.quiet import import_bitsandbytes, quiet_libraries


@dataclass(frozen=True)
class RandomWeight:
    """One weight that is made when it is asked for, as transformers does with slices of safetensors: norms' gains are 1."""

    shape: tuple[int, ...]
    spread: float

    def __getitem__(self, _: object) -> Tensor:
        return torch.ones(self.shape) if len(self.shape) == 1 else torch.randn(self.shape) * self.spread


def random_base(shape: tuple[int, int], quant: Quant, dtype: str, device: str) -> Base:
    """A base of L layers and hidden size H, with the demo's tokenizer. Its weights are made and quantised one by one."""
    plan = decide(probe(), device, dtype, quant)
    if plan.quant != "none":
        import_bitsandbytes()
    keep_few_kernels()
    tokenizer = load_tokenizer(EMBEDDED)
    config = _config(*shape, len(tokenizer))
    with torch.device("meta"):
        empty = LlamaForCausalLM(config)
    torch.manual_seed(0)
    weights = {name: RandomWeight(tuple(weight.shape), config.initializer_range) for name, weight in empty.state_dict().items()}
    with quiet_libraries():
        model = LlamaForCausalLM.from_pretrained(
            None,
            config=config,
            state_dict=weights,
            dtype=getattr(torch, plan.dtype),
            device_map={"": plan.device},
            quantization_config=quantisation(plan, double_quant=False),
        )
    model.requires_grad_(False)
    model.eval()
    keep_differentiable(model)
    attend_by_sample(model)
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
