"""An IRM's outputs of one token, as generation needs them: in few steps, from weights laid out once.

Between two tokens llama.cpp streams its own weights through the caches, so that what counts is how many calls are made, and how
many bytes are read: `lite` has its scales multiplied in before, `paper` reads 8 bits a weight where the model's file is packed too.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from irm_lite.steering.irm import IRM, LiteIRM, PaperIRM

_ROWS = 4096  # that are packed at once
OneToken = Callable[[Tensor], Tensor]  # h0 (1, H), float32 -> all layers' outputs (L, H), float32


def one_token(irm: IRM, eight_bits: bool) -> OneToken | None:
    """For an IRM on the CPU whose weights stay as they are now; None where nothing is gained. `eight_bits`: whether `paper`'s
    weights may be rounded to 8 bits, each row by its own scale."""
    if isinstance(irm, LiteIRM) and irm.up.dtype == torch.float32:
        return _lite(irm)
    if isinstance(irm, PaperIRM) and eight_bits and hasattr(torch, "_weight_int8pack_mm"):
        return _paper(irm)
    return None


def _lite(irm: LiteIRM) -> OneToken:
    count, hidden = len(irm.layers), irm.hidden_size
    trunk: Any = irm.trunk
    first, _, second, _ = trunk
    down = irm.down.flatten(0, 1)
    kept = torch.ones(hidden) if irm._mask is None else irm._mask
    up = (irm.up * irm.scale[:, None, None] * kept[:, None]).contiguous()
    bias = (irm.bias * irm.scale[:, None] * kept)[..., None].contiguous()

    def outputs(h0: Tensor) -> Tensor:
        code = F.silu(F.linear(F.rms_norm(h0, (hidden,)), first.weight, first.bias))
        code = F.silu(F.linear(code, second.weight, second.bias))
        return torch.baddbmm(bias, up, F.linear(code, down).view(count, irm.rank, 1))[..., 0]

    return outputs


def _paper(irm: PaperIRM) -> OneToken:
    """Outputs are 0.3 to 0.9% off by their norms, whose effect is within llama.cpp's own rounding (docs/log.md). What is added to
    bfloat16 products stays in float32."""
    multiply: Any = torch._weight_int8pack_mm
    maps = [_packed(each) for each in (*list(irm.trunk)[::2], irm.head)]

    def outputs(h0: Tensor) -> Tensor:
        values = h0
        for number, (weight, scale, bias) in enumerate(maps):
            read = values if number == 0 else F.relu(values)
            values = multiply(read.to(torch.bfloat16), weight, scale).float() + bias
        return irm._kept(values.view(irm.hidden_size, len(irm.layers)).T.contiguous())

    return outputs


def _packed(linear: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Weights (out, in) as int8, each row's scale in bfloat16, and the bias."""
    weight = linear.weight
    packed, scale = torch.empty_like(weight, dtype=torch.int8), weight.new_empty(len(weight), dtype=torch.bfloat16)
    for start in range(0, len(weight), _ROWS):  # copies of a 7B head in floats are gigabytes each
        rows = slice(start, start + _ROWS)
        piece = weight[rows].float()
        scale[rows] = (piece.abs().amax(1) / 127).clamp_min(1e-30).to(torch.bfloat16)
        packed[rows] = (piece / scale[rows].float()[:, None]).round().clamp(-127, 127).to(torch.int8)
    return packed, scale, linear.bias.float()
