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
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
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
