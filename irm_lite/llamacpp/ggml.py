"""The few functions of ggml that llama-cpp-python does not wrap: a tensor's name, shape and contents.

A tensor is an address. Its contents may lie on a GPU, so they are copied by ggml's backend functions, never by pointer.
"""

import ctypes
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from irm_lite.errors import LlamaCppError
from irm_lite.types import FloatArray

_SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "ggml_get_name": (ctypes.c_char_p, [ctypes.c_void_p]),
    "ggml_nrows": (ctypes.c_int64, [ctypes.c_void_p]),
    "ggml_nbytes": (ctypes.c_size_t, [ctypes.c_void_p]),
    "ggml_is_contiguous": (ctypes.c_bool, [ctypes.c_void_p]),
    "ggml_backend_tensor_get": (None, [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t]),
    "ggml_backend_tensor_set": (None, [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t]),
}


@cache
def function(name: str) -> Callable[..., Any]:
    """One of ggml's functions, with its types."""
    from llama_cpp._ggml import libggml  # what it depends on, libggml-base among it, is found through it

    found: Callable[..., Any] = getattr(libggml, name)
    found.restype, found.argtypes = _SIGNATURES[name]  # type: ignore[attr-defined]
    return found


def read_rows(tensor: int, hidden_size: int) -> FloatArray:
    """A contiguous F32 tensor's contents as a copy, (rows, H)."""
    rows, n_bytes = function("ggml_nrows")(tensor), function("ggml_nbytes")(tensor)
    if n_bytes != 4 * rows * hidden_size or not function("ggml_is_contiguous")(tensor):
        name = function("ggml_get_name")(tensor).decode(errors="replace")
        raise LlamaCppError(f"llama.cpp's {name} is not {rows} rows of {hidden_size} floats")
    values = np.empty((rows, hidden_size), dtype=np.float32)
    function("ggml_backend_tensor_get")(tensor, values.ctypes.data, 0, n_bytes)
    return values


def write_rows(tensor: int, values: FloatArray) -> None:
    """Replace the contents of a tensor that `read_rows` has read."""
    values = np.ascontiguousarray(values, dtype=np.float32)
    function("ggml_backend_tensor_set")(tensor, values.ctypes.data, 0, values.nbytes)
