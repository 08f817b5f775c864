"""Rows of a GGUF's tensors, read, dequantised and rounded a few at a time: no matrix is there in float32 beside its copy.

llama.cpp's own routines take a quarter of the time of the package gguf's. Each is tried once on random blocks, and used where it
gives the same bits.
"""

import ctypes
import math
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from irm_lite.core.files.gguf_header import TensorInfo
from irm_lite.core.machine.in_threads import in_threads
from irm_lite.core.types import FloatArray, IntArray

_PIECE = 1 << 17  # values that are read at once
_ROUNDED = (1 << 15) - 1  # values that are rounded at once: torch starts threads of its own for more
_TRIED = 1000  # blocks

Bytes = np.ndarray[Any, np.dtype[np.uint8]]
_ToFloat = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)


class _TypeTraits(ctypes.Structure):
    """The start of ggml_type_traits (ggml.h)."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("block", ctypes.c_int64),
        ("interleaved", ctypes.c_int64),
        ("block_bytes", ctypes.c_size_t),
        ("quantised", ctypes.c_bool),
        ("to_float", ctypes.c_void_p),
    )


def unpacked(path: Path, part: TensorInfo, dtype: torch.dtype = torch.float32, places: IntArray | None = None) -> Tensor:
    """A tensor dequantised, in rows as torch has them (the file's shape turned round), by as many threads as torch has.

    `places` (R,) are the rows where those of the file come to stand; None: where they are.
    """
    rows, columns = math.prod(part.shape[1:]), part.shape[0] if part.shape else 1
    size = part.n_bytes // max(rows, 1)
    if places is not None and bool((places[:-1] < places[1:]).all()):
        places = None
    values = torch.empty((rows, columns), dtype=dtype)  # numpy's would ask for large pages, and wait until there are some
    step, few = (max(most // max(columns, 1), 1) for most in (_PIECE, _ROUNDED))
    direct = values.numpy() if dtype == torch.float32 and places is None else None

    def work(first: int) -> None:
        count = min(step, rows - first)
        stored = np.fromfile(path, np.uint8, count * size, offset=part.offset + first * size).reshape(count, size)
        if direct is not None:
            dequantise(stored, part.type, direct[first : first + count])
            return
        room = np.empty((min(few, count), columns), np.float32)
        for at in range(0, count, few):
            end = min(at + few, count)
            dequantise(stored[at:end], part.type, room[: end - at])
            found = torch.from_numpy(room[: end - at])
            if places is None:
                values[first + at : first + end] = found
            else:
                values[torch.from_numpy(places[first + at : first + end])] = found.to(dtype)

    in_threads(work, range(0, rows, step), torch.get_num_threads())
    return values.view(part.shape[::-1])


def dequantise(stored: Bytes, kind: int, into: FloatArray) -> None:
    """Rows of blocks (R, bytes) of ggml's type -> (R, C), contiguous. Raises NotImplementedError where nobody can."""
    import gguf

    function = _of_llamacpp(kind)
    if function is None:
        into[:] = gguf.dequantize(stored, gguf.GGMLQuantizationType(kind))
    else:
        function(stored.ctypes.data, into.ctypes.data, into.size)


@cache
def _of_llamacpp(kind: int) -> Callable[[int, int, int], None] | None:
    """llama.cpp's own routine for a type: from an address, to an address, so many values. None where it has none, or where its
    bits are not those of the package gguf."""
    import gguf
    from llama_cpp._ggml import libggml

    number = gguf.GGMLQuantizationType(kind)
    block, block_bytes = gguf.GGML_QUANT_SIZES[number]
    find: Any = libggml["ggml_get_type_traits"]  # a function object of its own, with its own types
    find.restype, find.argtypes = ctypes.c_void_p, [ctypes.c_int]
    traits = _TypeTraits.from_address(find(kind))
    named = (traits.name or b"").decode(errors="replace").lower() == number.name.lower()
    if not named or (traits.block, traits.block_bytes) != (block, block_bytes) or not traits.to_float:
        return None
    function = _ToFloat(traits.to_float)
    stored = np.random.default_rng(0).integers(0, 256, (_TRIED, block_bytes), dtype=np.uint8)
    found = np.empty((_TRIED, block), np.float32)
    function(stored.ctypes.data, found.ctypes.data, found.size)
    try:
        with np.errstate(all="ignore"):  # random scales may be infinite
            expected = gguf.dequantize(stored, number).astype(np.float32)
    except NotImplementedError:
        return None
    same = (found.view(np.int32) == expected.view(np.int32)) | (np.isnan(found) & np.isnan(expected))
    return function if same.all() else None
