"""The quick 4-bit quantisation gives bitsandbytes' own bits, and is gone afterwards."""

import bitsandbytes
import numpy as np
import pytest
import torch

from irm_lite.core.machine.four_bits import quick_four_bits
from irm_lite.core.machine.in_threads import in_threads

CODES = {kind: bitsandbytes.functional.get_4bit_type(kind, device="cpu").float() for kind in ("nf4", "fp4")}


def both(matrix: torch.Tensor, kind: str, storage: torch.dtype = torch.uint8) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Packed values and largest magnitudes, by bitsandbytes and by ours."""

    def quantised() -> tuple[torch.Tensor, torch.Tensor]:
        packed, state = bitsandbytes.functional.quantize_4bit(matrix, quant_type=kind, quant_storage=storage)
        return packed, state.absmax

    own = quantised()
    with quick_four_bits():
        return [own, quantised()]


def assert_same_bits(own: tuple[torch.Tensor, torch.Tensor], ours: tuple[torch.Tensor, torch.Tensor]) -> None:
    for one, other in zip(own, ours, strict=True):
        assert (one.shape, one.dtype, one.stride()) == (other.shape, other.dtype, other.stride())
        assert one.numpy(force=True).tobytes() == other.numpy(force=True).tobytes()


@pytest.mark.parametrize("kind", list(CODES))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (1, 65), (64, 64), (130, 1000), (301, 1001)])
def test_the_bits_are_bitsandbytes_own(kind: str, dtype: torch.dtype, shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    if matrix.numel() > 1000:
        flat = matrix.view(-1)
        flat[:64] = 0
        flat[100], flat[200], flat[300], flat[-3] = float("nan"), float("inf"), -float("inf"), 1e-40
    assert_same_bits(*both(matrix, kind))


@pytest.mark.parametrize("kind", list(CODES))
def test_the_middles_and_their_neighbours_fall_to_the_same_side(kind: str) -> None:
    numbers = CODES[kind].sort().values.numpy()
    middles = (numbers[1:] + numbers[:-1]) / np.float32(2)
    near = [middles, np.nextafter(middles, np.float32(2)), np.nextafter(middles, np.float32(-2)), numbers]
    values = np.concatenate([*near, np.ones(-sum(map(len, near)) % 64, np.float32)]).astype(np.float32)
    assert_same_bits(*both(torch.from_numpy(values), kind))


def test_several_threads_and_other_storage_change_nothing() -> None:
    matrix = torch.randn((700, 512), generator=torch.Generator().manual_seed(1))
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        own, ours = both(matrix, "nf4", torch.bfloat16)
    finally:
        torch.set_num_threads(threads)
    assert own[0].dtype == ours[0].dtype == torch.bfloat16
    assert torch.equal(own[0].view(torch.uint8), ours[0].view(torch.uint8))
    assert torch.equal(own[1], ours[1])


def test_afterwards_bitsandbytes_quantises_again() -> None:
    def registered() -> bool:
        return bool(torch._C._dispatch_has_kernel_for_dispatch_key("bitsandbytes::quantize_4bit", "CPU"))

    before = registered()
    with pytest.raises(RuntimeError, match="in the middle"), quick_four_bits(), quick_four_bits():
        assert registered()
        raise RuntimeError("in the middle")
    assert registered() == before


def test_an_error_in_a_thread_is_not_lost() -> None:
    with pytest.raises(ZeroDivisionError):
        in_threads(lambda start: print(1 // (start - 5)), range(8), 3)
