"""Small GGUF files for tests, written by the `gguf` package."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]


def write_gguf(
    path: Path,
    architecture: str,
    tensors: Mapping[str, Array],
    fields: Mapping[str, Any] | None = None,
    types: Mapping[str, int] | None = None,
) -> Path:
    """Write `tensors` and metadata `fields`; a tensor named in `types` is quantised to that ggml type first."""
    writer = gguf.GGUFWriter(path, architecture)
    for key, value in (fields or {}).items():
        add_value(writer, key, value)
    for name, tensor in tensors.items():
        kind = None if types is None or name not in types else gguf.GGMLQuantizationType(types[name])
        writer.add_tensor(name, tensor if kind is None else gguf.quants.quantize(tensor, kind), raw_dtype=kind)
    finish(writer)
    return path


def add_value(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    """Add one entry of the metadata, of the type that its value has."""
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, value)


def add_sizes(writer: gguf.GGUFWriter, config: Any) -> int:
    """A transformers configuration's sizes; gives that of a head."""
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    blocks = getattr(config, "layer_types", None) or ()
    heads = config.num_key_value_heads
    writer.add_head_count_kv([0 if kind == "conv" else heads for kind in blocks] if "conv" in blocks else heads)
    size: int = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return size


def finish(writer: gguf.GGUFWriter) -> None:
    """Write all that was added."""
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
