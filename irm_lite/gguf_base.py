"""A .gguf file -> a model in transformers, quantised again by bitsandbytes, weight by weight."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from irm_lite.device import DevicePlan
from irm_lite.errors import BaseModelError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def load_dense(gguf: Path, plan: DevicePlan) -> "PreTrainedModel":
    """Dequantised on the CPU, in the plan's dtype: transformers cannot quantise a GGUF again on the way."""
    from transformers import AutoModelForCausalLM
    from transformers.utils.quantization_config import GgufConfig

    model, loading = AutoModelForCausalLM.from_pretrained(
        str(gguf.parent),
        output_loading_info=True,
        gguf_file=gguf.name,
        dtype=getattr(torch, plan.dtype),
        local_files_only=True,
        quantization_config=GgufConfig(dequantize=True),
    )
    require_whole(loading, str(gguf))
    return model


def require_whole(loading: dict[str, Any], name: str) -> None:
    """Raise BaseModelError where the file lacked weights, which transformers fills with random numbers, or had other layers."""
    lost = [*loading["missing_keys"], *(str(key) for key in loading["mismatched_keys"])]
    spare = [key for key in loading["unexpected_keys"] if ".layers." in key and "inv_freq" not in key]
    if lost or spare:
        example = sorted(map(str, lost or spare))[0]
        kind = "lacks" if lost else "has other layers than its configuration:"
        raise BaseModelError(f"{name} {kind} {len(lost or spare)} weights, {example} among them", "get a whole copy")


def quantise(layers: nn.ModuleList, plan: DevicePlan, double_quant: bool) -> None:
    """Replace the blocks' linear layers, one at a time: at no moment is there a second full copy."""
    import bitsandbytes as bnb

    for name, linear in list(layers.named_modules()):
        if type(linear) is not nn.Linear:
            continue
        bias = linear.bias is not None
        quantised: nn.Linear
        if plan.quant == "int8":
            quantised = bnb.nn.Linear8bitLt(linear.in_features, linear.out_features, bias, has_fp16_weights=False, device="meta")
            quantised.weight = bnb.nn.Int8Params(linear.weight.data, requires_grad=False, has_fp16_weights=False)
        else:
            quantised = bnb.nn.Linear4bit(
                linear.in_features,
                linear.out_features,
                bias,
                compute_dtype=getattr(torch, plan.dtype),
                compress_statistics=double_quant,
                quant_type=plan.quant,
                device="meta",
            )
            quantised.weight = bnb.nn.Params4bit(
                linear.weight.data,
                requires_grad=False,
                compress_statistics=double_quant,
                quant_type=plan.quant,
                module=quantised,
            )
        quantised.bias = linear.bias
        layers.set_submodule(name, quantised.to(plan.device))  # the move is what quantises
        linear.weight = None  # type: ignore[assignment]  # let the full-precision copy go now


def keep_differentiable(model: nn.Module) -> None:
    """Forbid bitsandbytes' AVX512-BF16 inference layout.

    On such CPUs the first forward without gradients repacks the weights in place, and forwards after it have no
    backward (bitsandbytes 0.50, Linear4bit.forward): one evaluation would silently end the training.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False  # type: ignore[assignment]


@contextmanager
def gguf_read_once() -> Iterator[None]:
    """Let transformers parse a GGUF's vocabulary once, not three times, and index plain memory while it does.

    It parses for the tokenizer, the configuration and the weights, through numpy.memmap's slow indexing, and builds the
    tensor name map once a submodule: 27 s for the demo model, 11 s with this (docs/log.md).
    """
    import gguf
    import numpy as np

    class Reader(gguf.GGUFReader):  # type: ignore[misc]
        data: Any

        def _get(self, *args: object, **options: object) -> object:
            if type(self.data) is np.memmap:
                self.data = self.data.view(np.ndarray)
            return super()._get(*args, **options)

    saved = gguf.GGUFReader, gguf.get_tensor_name_map
    gguf.GGUFReader, gguf.get_tensor_name_map = cache(Reader), cache(gguf.get_tensor_name_map)
    try:
        yield
    finally:
        gguf.GGUFReader, gguf.get_tensor_name_map = saved
