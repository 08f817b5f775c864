"""The few functions of ggml that llama-cpp-python does not wrap: a tensor's name, shape and contents.

A tensor is an address. Its contents may lie on a GPU, so they are copied by ggml's backend functions, never by pointer.
"""

import ctypes
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from irm_lite.core.errors import LlamaCppError
from irm_lite.core.types import FloatArray

_SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "ggml_op_desc": (ctypes.c_char_p, [ctypes.c_void_p]),
    "ggml_get_name": (ctypes.c_char_p, [ctypes.c_void_p]),
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


# Where a ggml_tensor (ggml.h) has its extents and its ten sources; its name follows those, its view (16 bytes) and its data.
_EXTENTS, _SOURCES, _NAME = 16, 152, 152 + 10 * 8 + 24


def sources(tensor: int) -> tuple[int, int]:
    """What the node was computed from: its first two sources, 0 where there is none.

    Raises LlamaCppError where this llama.cpp's struct is laid out otherwise.
    """
    _require_layout(tensor)
    first, second = (ctypes.c_void_p * 2).from_address(tensor + _SOURCES)
    return first or 0, second or 0


def weight_name(tensor: int) -> bytes:
    """The name of a node's first source: of a linear map's product, of its weight. Empty where there is none."""
    weight, _ = sources(tensor)
    return function("ggml_get_name")(weight) if weight else b""


def width(tensor: int) -> int:
    """Values of a row. Raises as `sources` does."""
    _require_layout(tensor)
    return int(ctypes.c_int64.from_address(tensor + _EXTENTS).value)


def _require_layout(tensor: int) -> None:
    if name_address(tensor) - tensor != _NAME:
        raise LlamaCppError("this llama.cpp lays out its tensors otherwise", "pip install llama-cpp-python==0.3.36")


def input_of_norm(tensor: int) -> int:
    """The tensor that a norm read, from what came out of it: the gain's product, or the bias's sum behind that.

    Raises LlamaCppError where no norm is found, or as `sources` does.
    """
    while tensor:
        source, _ = sources(tensor)
        if source and function("ggml_op_desc")(tensor) in (b"RMS_NORM", b"NORM"):
            return source
        tensor = source
    raise LlamaCppError("llama.cpp's graph of this architecture hides what the IRM reads", "use the exported control vector")


@cache
def _name_address() -> Callable[[int], int]:
    from llama_cpp._ggml import libggml

    found: Any = libggml["ggml_get_name"]  # a function object of its own, with its own types
    found.restype, found.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
    return found  # type: ignore[no-any-return]


def name_address(tensor: int) -> int:
    """Where a tensor keeps its name, inside itself."""
    return _name_address()(tensor)


class Rows:
    """Reads and replaces the rows of contiguous F32 tensors through one buffer, since this happens L times a token."""

    def __init__(self, hidden_size: int) -> None:
        self._hidden_size = hidden_size
        self._values = np.empty((1, hidden_size), dtype=np.float32)
        self._address = self._values.ctypes.data
        self._n_bytes = function("ggml_nbytes")
        self._contiguous = function("ggml_is_contiguous")
        self._get = function("ggml_backend_tensor_get")
        self._set = function("ggml_backend_tensor_set")

    def read(self, tensor: int, rows: int | None = None) -> FloatArray:
        """The tensor's contents, (rows, H): a view that holds until the next read. To give a known number saves time."""
        if rows == 1:
            self._get(tensor, self._address, 0, 4 * self._hidden_size)
            return self._values[:1]
        n_bytes = self._n_bytes(tensor)
        count, rest = divmod(n_bytes, 4 * self._hidden_size)
        if rest or not self._contiguous(tensor):
            name = function("ggml_get_name")(tensor).decode(errors="replace")
            raise LlamaCppError(f"llama.cpp's {name} is not rows of {self._hidden_size} floats")
        if count > len(self._values):
            self._values = np.empty((count, self._hidden_size), dtype=np.float32)
            self._address = self._values.ctypes.data
        if n_bytes:
            self._get(tensor, self._address, 0, n_bytes)
        return self._values[:count]

    def write(self, tensor: int, count: int) -> None:
        """Put the first rows of what was read, changed meanwhile, back into the tensor."""
        if count:
            self._set(tensor, self._address, 0, 4 * self._hidden_size * count)
