"""A .gguf file -> its weights by transformers' names, each read and dequantised when it is asked for."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from irm_lite.base.architecture import decoder_layers
from irm_lite.base.sources.folder import choose_code
from irm_lite.base.sources.gguf_graph import read_graph
from irm_lite.base.sources.gguf_rows import dequantise, unpacked
from irm_lite.base.sources.shape import SPARE, shape_of_header
from irm_lite.core.errors import BaseModelError
from irm_lite.core.files.gguf_header import GgufHeader, TensorInfo, read_header
from irm_lite.core.types import IntArray

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

_GEMMA_27B = {"gemma2": 46, "gemma3": 62}  # layers of the one size whose heads are scaled otherwise


def skeleton(gguf: Path) -> "PreTrainedModel":
    """The file's model on the meta device: its class and configuration, no weights.

    Raises BaseModelError where its blocks cannot be injected, or its metadata describes far more weights than the file has,
    before a weight is read.
    """
    from transformers import AutoModelForCausalLM

    header = read_header(gguf)
    config = _configuration(header)
    choose_code(config, str(gguf))
    with torch.device("meta"):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    wanted = sum(weight.numel() for weight in model.state_dict().values())
    stored = sum(math.prod(tensor.shape) for tensor in header.tensors.values())
    if wanted > 2 * stored + SPARE:  # transformers would allocate them all; a tied head is counted twice
        raise BaseModelError(
            f"the metadata of {gguf} describes {wanted} weights, the file has {stored}", "download or convert it again"
        )
    decoder_layers(model)
    return model


def _configuration(header: GgufHeader) -> "PretrainedConfig":
    """transformers' configuration of the file's graph: from its header where every key is mapped, else as transformers reads it."""
    from transformers import AutoConfig, LlamaConfig, Qwen2Config, Qwen3Config

    graph, gguf = read_graph(header), header.path
    if graph is None:
        config = AutoConfig.from_pretrained(str(gguf.parent), gguf_file=gguf.name, local_files_only=True, trust_remote_code=False)
        if header.architecture in _GEMMA_27B:  # no key says it: transformers would take its default of 256
            config.query_pre_attn_scalar = _gemma_scale(header)
        return config
    shape = shape_of_header(header)
    options: dict[str, Any] = {"attention_bias": graph.attention_bias, "mlp_bias": graph.mlp_bias}
    kind: Any = {"llama": LlamaConfig, "qwen2": Qwen2Config, "qwen3": Qwen3Config}[header.architecture]
    return kind(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_size,
        max_position_embeddings=header.integer(f"{header.architecture}.context_length"),
        rms_norm_eps=header.metadata[f"{header.architecture}.attention.layer_norm_rms_epsilon"],
        rope_parameters={"rope_type": "default", "rope_theta": graph.rope.base},  # any scaling is put in by `rotate`
        tie_word_embeddings=shape.tied,
        **{f"{name}_token_id": header.metadata.get(f"tokenizer.ggml.{name}_token_id") for name in ("bos", "eos")},
        **(options if header.architecture == "llama" else {}),
    )


def _gemma_scale(header: GgufHeader) -> int:
    """What Gemma's attention divides by the root of, as llama.cpp's graph has it: by the number of layers."""
    of = f"{header.architecture}."
    if header.integer(f"{of}block_count") == _GEMMA_27B[header.architecture]:
        return header.integer(f"{of}embedding_length") // header.integer(f"{of}attention.head_count")
    return header.integer(f"{of}attention.key_length")


def rotate(model: "PreTrainedModel", gguf: Path) -> None:
    """Give the model the file's rotary frequencies where they are scaled in a way that its configuration does not say."""
    graph = read_graph(read_header(gguf))
    if graph is None:
        return
    rotary: Any = model.model.rotary_emb
    frequencies = torch.from_numpy(graph.rope.inv_freq).float()
    if not torch.allclose(rotary.inv_freq.cpu(), frequencies, rtol=1e-5, atol=0):  # else they keep their last bit
        for buffer in (rotary.inv_freq, rotary.original_inv_freq):
            buffer.copy_(frequencies)
    rotary.attention_scaling = graph.rope.scaling


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
    dtype: torch.dtype = torch.float32  # that transformers would round a matrix to at once

    @property
    def shape(self) -> tuple[int, ...]:
        """Of a matrix (V, H), as it stands in the file."""
        (part,) = self.parts
        return tuple(reversed(part.shape))

    def rows(self, ids: Tensor) -> Tensor:
        """Those rows (N, H) of a matrix, float32, as they stand in the file."""
        import numpy as np

        (part,) = self.parts
        size = part.n_bytes // part.shape[1]
        places = ids.tolist()
        if places == list(range(places[0], places[0] + len(places))):  # one piece of the file
            stored = np.fromfile(self.path, np.uint8, size * len(places), offset=part.offset + size * places[0]).reshape(-1, size)
        else:
            stored = np.stack([np.fromfile(self.path, np.uint8, size, offset=part.offset + size * number) for number in places])
        found = torch.empty((len(places), part.shape[0]))
        dequantise(stored, part.type, found.numpy())
        return found

    def __getitem__(self, _: object) -> Tensor:
        """On the CPU, dequantised, in transformers' layout: float32, or a matrix in `dtype`."""
        import numpy as np

        places = self._places()
        if places is not None:
            return unpacked(self.path, self.parts[0], self.dtype, places)
        done: dict[str, Tensor] = {}
        for part in self.parts:
            processed = self.processor.process(
                unpacked(self.path, part).numpy(), part.name, tensor_key_mapping=self.names, parsed_parameters={"tensors": done}
            )
            if processed.name is not None:  # else it put the result into `done` itself
                done[self.names[processed.name]] = torch.from_numpy(np.ascontiguousarray(processed.weights))
        return done[self.name]

    def _places(self) -> IntArray | None:
        """Of a matrix whose rows transformers has in another order at most: where those of the file belong, (R,). None of what its
        processor may change otherwise."""
        import numpy as np
        from transformers.modeling_gguf_pytorch_utils import LlamaTensorProcessor, TensorProcessor

        part = self.parts[0]
        if type(self.processor) not in (TensorProcessor, LlamaTensorProcessor) or len(self.parts) > 1 or len(part.shape) != 2:
            return None
        numbers = np.arange(part.shape[1])[:, None]
        return np.argsort(self.processor.process(numbers, part.name).weights[:, 0])


def _require_dequantisable(header: GgufHeader) -> None:
    """Raise BaseModelError where the package gguf cannot undo the quantisation of a tensor: llama.cpp may still run the file."""
    import gguf
    import numpy as np

    for number in sorted({tensor.type for tensor in header.tensors.values()}):
        kind = gguf.GGMLQuantizationType(number)
        try:
            gguf.dequantize(np.zeros((1, gguf.GGML_QUANT_SIZES[kind][1]), np.uint8), kind)
        except NotImplementedError:
            name = next(tensor.name for tensor in header.tensors.values() if tensor.type == number)
            raise BaseModelError(
                f"{header.path}: {name} is quantised as {kind.name}, which the package gguf cannot undo",
                "pip install -U gguf, or train on the model in another quantisation (it steers this one too)",
            ) from None


def gguf_weights(gguf: Path, model: "PreTrainedModel", dtype: torch.dtype = torch.float32) -> "dict[str, GgufWeight | Tensor]":
    """The file's weights by the names they have in `model`, its skeleton; what the model has no place for is left out. Biases
    that only some layers have are zero in the others, as llama.cpp leaves them out. `dtype`: of the model that they are for;
    matrices may come in it.

    Raises BaseModelError where they do not fit the model, or are of a type that cannot be dequantised.
    """
    from transformers.modeling_gguf_pytorch_utils import TENSOR_PROCESSORS, TensorProcessor, get_gguf_hf_weights_map

    header = read_header(gguf)
    _require_dequantisable(header)
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
    none = {name: torch.zeros(place.shape) for name, place in places.items() if name.endswith(".bias") and name not in parts}
    if model._keep_in_fp32_modules or model._keep_in_fp32_modules_strict:  # a matrix may be among these
        dtype = torch.float32
    return {name: GgufWeight(name, gguf, tensors, names, processor, dtype) for name, tensors in parts.items()} | none
