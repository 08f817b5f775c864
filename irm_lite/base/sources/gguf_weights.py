"""A .gguf file -> its weights by transformers' names, each read and dequantised when it is asked for."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

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
        raise BaseModelError(
            f"the metadata of {gguf} describes {wanted} weights, the file has {stored}", "download or convert it again"
        )
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
            raise BaseModelError(
                f"{gguf}: {tensors[0].name} has {stored} weights, its metadata says {wanted}", "download or convert it again"
            )
    return {name: GgufWeight(name, gguf, tensors, names, processor) for name, tensors in parts.items()}
