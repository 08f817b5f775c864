"""What the GGUF files of control vectors and of adapters have in common: how they are written, and irm-lite's own keys."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from irm_lite.base.fingerprint import Fingerprint
from irm_lite.core.errors import InputError, VectorError
from irm_lite.core.files.atomic import atomic_path
from irm_lite.core.files.gguf_header import GgufHeader, read_header

Metadata = dict[str, str | int | float]


def read_steering_header(path: Path | str) -> GgufHeader:
    """The file's header. Raises VectorError where it is no GGUF, or damaged."""
    try:
        return read_header(path)
    except VectorError:
        raise
    except InputError as error:
        raise VectorError(str(error)) from None


def is_adapter(path: Path | str) -> bool:
    """Whether the file says that it is an adapter. Raises VectorError where it is no GGUF, or damaged."""
    return read_steering_header(path).metadata.get("general.type") == "adapter"


def write_steering(path: Path | str, architecture: str, prefix: str, metadata: Metadata, fill: Callable[[Any], None]) -> None:
    """Write the file, atomically: what `fill` adds to the writer, and `metadata` under the prefix. Raises VectorError where the
    place cannot be written."""
    from gguf import GGUFWriter

    try:
        with atomic_path(Path(path)) as temporary:
            writer = GGUFWriter(temporary, architecture)
            fill(writer)
            _add_own_keys(writer, prefix, metadata)
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
            writer.close()
    except OSError as error:
        raise VectorError(f"{path} cannot be written ({error.strerror or error})", "choose another place") from None


def own_keys_of(header: GgufHeader, prefix: str) -> Metadata:
    """irm-lite's own keys without their prefix, those that could be written again."""
    return {
        key.removeprefix(prefix): value
        for key, value in header.metadata.items()
        if key.startswith(prefix) and _can_be_written(value)
    }


def base_keys(base: Fingerprint) -> Metadata:
    """What a file says of the base that it was made on, beside the architecture."""
    return {
        "base.n_layers": base.n_layers,
        "base.hidden_size": base.hidden_size,
        "base.weights": base.weights,
        "base.quantisation": base.quantisation,
        "base.graph": base.graph,
    }


def base_hashes(metadata: Mapping[str, str | int | float]) -> tuple[str, str, str]:
    """Weights, quantisation and graph of the base, as `base_keys` wrote them; empty where they are not known."""
    weights, quantisation, graph = (str(metadata.get(f"base.{key}", "")) for key in ("weights", "quantisation", "graph"))
    return weights, quantisation, graph


def _can_be_written(value: object) -> bool:
    """Whether it is what irm-lite writes: a text, an int64 or a finite float32."""
    if isinstance(value, int):
        return abs(value) < 2**63
    return isinstance(value, str) or (isinstance(value, float) and abs(value) <= float(np.finfo(np.float32).max))


def _add_own_keys(writer: Any, prefix: str, metadata: Metadata) -> None:
    from gguf import GGUFValueType

    for key, value in metadata.items():
        if isinstance(value, str):
            writer.add_key_value(prefix + key, value, GGUFValueType.STRING)  # add_string drops an empty one
        elif isinstance(value, int):
            writer.add_int64(prefix + key, value)
        else:
            writer.add_float32(prefix + key, value)
