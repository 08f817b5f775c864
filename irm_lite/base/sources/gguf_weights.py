"""A .gguf file -> its weights by transformers' names, each read and dequantised when it is asked for."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from irm_lite.base.architecture import decoder_layers
from irm_lite.base.sources.folder import choose_code
from irm_lite.base.sources.shape import SPARE
from irm_lite.core.errors import BaseModelError
from irm_lite.core.files.gguf_header import TensorInfo, read_header

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def skeleton(gguf: Path) -> "PreTrainedModel":
    """The file's model on the meta device: its class and configuration, no weights.

    Raises BaseModelError where its blocks cannot be injected, or its metadata describes far more weights than the file has,
    before a weight is read.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(str(gguf.parent), gguf_file=gguf.name, local_files_only=True, trust_remote_code=False)
    choose_code(config, str(gguf))
    with torch.device("meta"):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    wanted = sum(weight.numel() for weight in model.state_dict().values())
    stored = sum(math.prod(tensor.shape) for tensor in read_header(gguf).tensors.values())
    if wanted > 2 * stored + SPARE:  # transformers would allocate them all; a tied head is counted twice
        raise BaseModelError(f"the metadata of {gguf} describes {wanted} weights, the file has {stored}", "get a whole copy")
    decoder_layers(model)
    return model


@dataclass(frozen=True)
class GgufWeight:
    """One weight of the model, still in the file. `[...]` reads it, as transformers does with slices of safetensors.

    The bytes are read, not mapped: mapped pages would stay in the process's memory beside the weights.
    """

    name: str  # transformers'
    path: Path
    parts: tuple[TensorInfo, ...]  # one; of fused experts several
    names: dict[str, str]  # GGUF's -> transformers'
    processor: Any  # transformers', of the file's architecture: undoes what llama.cpp's converter did to the layout

    def __getitem__(self, _: object) -> Tensor:
        """On the CPU, dequantised to float32, in transformers' layout."""
        import gguf
        import numpy as np

        done: dict[str, Tensor] = {}
        for part in self.parts:
            kind = gguf.GGMLQuantizationType(part.type)
            stored = np.fromfile(self.path, np.uint8, part.n_bytes, offset=part.offset)
            values = gguf.dequantize(stored.reshape(*part.shape[:0:-1], -1), kind)
            processed = self.processor.process(
                values, part.name, tensor_key_mapping=self.names, parsed_parameters={"tensors": done}
            )
            if processed.name is not None:  # else it put the result into `done` itself
                done[self.names[processed.name]] = torch.from_numpy(np.ascontiguousarray(processed.weights))
        return done[self.name]


def gguf_weights(gguf: Path, model: "PreTrainedModel") -> dict[str, GgufWeight]:
    """The file's weights by the names they have in `model`, its skeleton; what the model has no place for is left out."""
    from transformers.modeling_gguf_pytorch_utils import TENSOR_PROCESSORS, TensorProcessor, get_gguf_hf_weights_map

    header = read_header(gguf)
    processor = TENSOR_PROCESSORS.get(header.architecture, TensorProcessor)(config=model.config.to_dict())
    names: dict[str, str] = get_gguf_hf_weights_map(model, processor)
    parts: dict[str, tuple[TensorInfo, ...]] = {}
    for tensor in header.tensors.values():
        name = names.get(tensor.name) or names.get(tensor.name.removesuffix(".weight"))  # fused experts have no suffix
        if name is not None:
            parts[name] = (*parts.get(name, ()), tensor)
    places = model.state_dict()
    for name, tensors in parts.items():
        stored, wanted = sum(math.prod(tensor.shape) for tensor in tensors), places[name].numel() if name in places else None
        if wanted is not None and stored > wanted:  # transformers would see it once it is in memory
            raise BaseModelError(f"{gguf}: {tensors[0].name} has {stored} weights, its metadata says {wanted}", "get a whole copy")
    return {name: GgufWeight(name, gguf, tensors, names, processor) for name, tensors in parts.items()}


def require_whole(model: nn.Module, loading: dict[str, Any], name: str) -> None:
    """Raise BaseModelError where the file lacked weights, which transformers fills with random numbers, or had other layers.

    A weight of another shape transformers reports unless it quantises it: then the layer holds it, and its first forward fails.
    """
    misfits = [(key, tuple(found), tuple(wanted)) for key, found, wanted in loading["mismatched_keys"]]
    for place, linear in model.named_modules():
        if isinstance(linear, nn.Linear):
            weight: Any = linear.weight
            found = tuple(weight.quant_state.shape if hasattr(weight, "quant_state") else weight.shape)
            if found != (wanted := (linear.out_features, linear.in_features)):
                misfits.append((f"{place}.weight", found, wanted))
    if misfits:
        key, found, wanted = min(misfits)
        raise BaseModelError(f"{name}: {key} is {found}, its configuration says {wanted}", "get a whole copy")
    lost = [*loading["missing_keys"]]
    spare = [key for key in loading["unexpected_keys"] if ".layers." in key and "inv_freq" not in key]
    if lost or spare:
        example = sorted(map(str, lost or spare))[0]
        kind = "lacks" if lost else "has other layers than its configuration:"
        raise BaseModelError(f"{name} {kind} {len(lost or spare)} weights, {example} among them", "get a whole copy")


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
