"""4-bit quantisation on the CPU, several times as fast as bitsandbytes' own, with the same bits.

bitsandbytes looks each value up among the 15 middles between its 16 numbers by binary search, in passes over the whole matrix. Here
a piece that fits the processor's cache is compared with each middle in turn, by as many threads as torch has.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import numpy as np

from irm_lite.core.machine.in_threads import in_threads

Array = np.ndarray[Any, np.dtype[Any]]

_PIECE = 1 << 17  # values: few enough for the cache, and many for numpy
_LEAST = np.float32(1e-38)  # bitsandbytes' guard against a division by zero


@contextmanager
def quick_four_bits() -> Iterator[None]:
    """Within it, bitsandbytes quantises matrices on the CPU by `quantised`. Nothing changes where bitsandbytes is not installed, or
    has a kernel of its own for that."""
    try:
        import bitsandbytes  # noqa: F401
    except ImportError:
        yield
        return
    import torch

    name, registry = "bitsandbytes::quantize_4bit", cast("Any", torch.library)
    if torch._C._dispatch_has_kernel_for_dispatch_key(name, "CPU"):
        yield
        return
    library = registry.Library("bitsandbytes", "IMPL")
    library.impl("quantize_4bit", _kernel, "CPU")
    try:
        yield
    finally:
        library._destroy()


def _kernel(matrix: Any, blocksize: int, quant_type: str, quant_storage: Any) -> tuple[Any, Any]:
    """As bitsandbytes' `quantize_4bit`: (packed bytes (N / 2, 1) as `quant_storage`, largest magnitudes (blocks,))."""
    import torch
    from bitsandbytes.functional import get_4bit_type

    code = get_4bit_type(quant_type, device="cpu", blocksize=blocksize).float().numpy()
    flat = matrix.detach().reshape(-1)
    values = flat.view(torch.int16).numpy().view(np.uint16) if flat.dtype == torch.bfloat16 else flat.numpy()
    packed, largest = quantised(values, blocksize, code, torch.get_num_threads())
    result = torch.from_numpy(packed)
    if quant_storage != torch.uint8:
        result = result.view(quant_storage)
    return result.unsqueeze(1), torch.from_numpy(largest)


def quantised(values: Array, blocksize: int, code: Array, threads: int) -> tuple[Array, Array]:
    """Values (N,), float16, float32, or bfloat16 as its bits in uint16 -> bytes of two values each, the first in the upper half,
    and each block's largest magnitude, float32. A value becomes the index of the nearest of `code`'s 16 numbers times that."""
    order = np.argsort(code, kind="stable").astype(np.uint8)
    middles = (code[order[:-1]] + code[order[1:]]) / np.float32(2)
    packed = np.empty(-(-len(values) // 2), np.uint8)
    largest = np.empty(-(-len(values) // blocksize), np.float32)
    piece = max(_PIECE // (2 * blocksize), 1) * 2 * blocksize

    def work(start: int) -> None:
        part = _float32(values[start : start + piece])
        first = start // blocksize
        found = _scaled(part, blocksize)
        largest[first : first + len(found)] = found
        index = np.full(len(part) + len(part) % 2, len(middles), np.uint8)
        index[len(part) :] = np.searchsorted(middles, 0)  # an odd last value's companion is 0
        below = np.empty(len(part), bool)
        for middle in middles:  # NaN is below none, and so counts as the largest, as in torch.bucketize
            np.less_equal(part, middle, out=below)
            index[: len(part)] -= below
        if (order[1:] < order[:-1]).any():
            index = order[index]
        pairs = index.view("<u2")
        packed[start // 2 : start // 2 + len(pairs)] = (pairs << 4) | (pairs >> 8)

    in_threads(work, range(0, len(values), piece), threads)
    return packed, largest


def _scaled(part: Array, blocksize: int) -> Array:
    """Each block's largest magnitude, by which its values are divided in place."""
    whole = len(part) // blocksize * blocksize
    blocks, rest = part[:whole].reshape(-1, blocksize), part[whole:]
    with np.errstate(all="ignore"):
        found: Array = np.abs(blocks).max(axis=1, initial=0)
        blocks *= (np.float32(1) / np.maximum(found, _LEAST))[:, None]
        if len(rest):  # bitsandbytes divides here, and keeps the guarded magnitude
            last = np.maximum(np.abs(rest).max(), _LEAST)
            rest /= last
            found = np.append(found, last)
    np.clip(part, -1, 1, out=part)
    return found


def _float32(values: Array) -> Array:
    """A copy in float32; uint16 are the bits of bfloat16."""
    if values.dtype == np.uint16:
        wide = values.astype(np.uint32)
        wide <<= 16
        return wide.view(np.float32)
    return values.astype(np.float32)
