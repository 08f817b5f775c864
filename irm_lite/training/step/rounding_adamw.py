"""AdamW for weights in bfloat16: each step is computed in float32 and rounded stochastically, so that small steps add up.

A bfloat16 weight has 8 significant bits. Rounding to the nearest loses every step below half the distance to the next number;
rounding up with a probability equal to the fraction of that distance makes the expected weight the exact one (Zamirai et al. 2020,
"Revisiting BFloat16 Training").
"""

import irm_lite.core.machine.bitsandbytes_first  # noqa: F401  # isort: skip
import zlib
from typing import Any

import torch
from bitsandbytes.optim import AdamW
from torch import Tensor, nn

_PIECE = 1 << 22  # weights held in float32 at once; a multiple of _BLOCK
_BLOCK = 256  # weights that share a scale in 8-bit states


class RoundingAdamW(AdamW):  # type: ignore[misc]  # bitsandbytes has no types
    """bitsandbytes' AdamW, with 8-bit or 32-bit states, paged or not. Weights that are not bfloat16 are rounded as it does.

    The random numbers depend on the step and the weight's place alone: processes that train together stay equal, and a resumed
    run repeats them.
    """

    @torch.no_grad()
    def update_step(self, group: dict[str, Any], p: nn.Parameter, gindex: int, pindex: int) -> None:
        if p.dtype != torch.bfloat16:
            super().update_step(group, p, gindex, pindex)
            return
        state = self.state[p]
        assert p.grad is not None
        p.data = p.data.contiguous()
        weights, gradient = p.data.view(-1), p.grad.contiguous().view(-1)
        generator = torch.Generator(p.device)
        place = f"{state['step']}/{gindex}/{pindex}".encode()
        generator.manual_seed(zlib.crc32(place))  # torch's CPU generator uses 32 bits of a seed
        for start in range(0, len(weights), _PIECE):
            piece = nn.Parameter(weights[start : start + _PIECE].float())
            piece.grad = gradient[start : start + _PIECE].float()
            self.state[piece] = _part(state, start, len(piece))
            super().update_step(group, piece, gindex, pindex)
            weights[start : start + _PIECE] = rounded(piece.data, generator)
            step = self.state.pop(piece)["step"]
        state["step"] = step


def rounded(weights: Tensor, generator: torch.Generator) -> Tensor:
    """float32 to bfloat16, up or down at random, so that the expected result is the weight itself."""
    bits = weights.view(torch.int32)
    noise = torch.randint(0, 1 << 16, bits.shape, dtype=torch.int32, device=bits.device, generator=generator)
    moved = ((bits + noise) & -(1 << 16)).view(torch.float32)
    return torch.where(weights.isfinite(), moved, weights).bfloat16()  # the bits of a NaN may run over, into a zero


def _part(state: dict[str, Any], start: int, count: int) -> dict[str, Any]:
    """The optimiser's state of `count` weights from `start` on, sharing its memory."""
    part = dict(state)
    for name in ("state1", "state2"):
        part[name] = state[name].view(-1)[start : start + count]
        if getattr(state[name], "is_paged", False):  # bitsandbytes reads it: to torch a paged tensor is one in memory
            part[name].is_paged = True
            part[name].page_deviceid = state[name].page_deviceid
    for name in ("absmax1", "absmax2"):
        if name in state:
            part[name] = state[name][start // _BLOCK : -(-(start + count) // _BLOCK)]
    return part
