"""How large a base's residual stream is after each block: models differ tenfold in it, and so do first and last blocks."""

from collections.abc import Sequence
from typing import Any

import torch

from irm_lite.base.architecture import decoder_layers, hidden_state
from irm_lite.base.forward import run_base
from irm_lite.base.load import Base
from irm_lite.base.padded import as_row
from irm_lite.data.encoding import Sample
from irm_lite.data.packing import pack

SAMPLES = 8  # a few hundred thousand numbers a block
_NORMAL = 1.4826  # standard deviation of a normal distribution whose median magnitude is 1


@torch.no_grad()
def stream_sizes(base: Base, samples: Sequence[Sample]) -> list[float]:
    """For each block the typical size of a number in the stream after it, at positions that predict an answer's tokens.

    From the median magnitude, so that neither the attention sink (100 times the norm of other tokens) nor a handful of massive
    activations counts. Rounded to bfloat16's 8 bits, in which an IRM's weights may be.
    """
    row = pack(samples[:SAMPLES])
    found: list[float] = []

    def measure(_module: object, _args: object, output: object) -> None:
        hidden = as_row(base.model, hidden_state(output))
        size = _NORMAL * hidden[0, row["positions"].to(hidden.device)].float().abs().median()
        found.append(float(size.clamp_min(1e-3).to(torch.bfloat16)))  # an empty stream has no size

    handles: list[Any] = [block.register_forward_hook(measure) for block in decoder_layers(base.model)]
    try:
        run_base(base.model, row)
    finally:
        for handle in handles:
            handle.remove()
    return found
