"""What an IRM does on the training samples, in one pass: its mean output, and the hidden states it leads to."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from irm_lite.base.forward import answer_hidden, row_of
from irm_lite.base.load import Base
from irm_lite.core.types import Progress, unwatched
from irm_lite.data.encoding import Sample
from irm_lite.data.packing import rows
from irm_lite.steering.injection import inject
from irm_lite.steering.irm import IRM


@dataclass
class Observed:
    """`mean` (L, H), float32: the output in each layer, mean over the positions that predict answer tokens. `power`
    (L,): its mean squared norm there. `hidden`: for each sample the injected model's final hidden states at those
    positions, (A, H)."""

    mean: Tensor
    power: Tensor
    hidden: list[Tensor]

    @property
    def dependent_share(self) -> "DependentShare":
        fixed = self.mean.square().sum(-1)
        by_layer = torch.where(self.power > 0, 1.0 - fixed / self.power, 0.0)  # of no output nothing varies
        overall = 1.0 - float(fixed.sum() / self.power.sum()) if self.power.sum() > 0 else 0.0
        return DependentShare(overall, tuple(by_layer.clamp(0, 1).tolist()))


@dataclass(frozen=True)
class DependentShare:
    """Of the IRM's output: the share of its power that varies with the input, 1 - |mean|^2 / mean |output|^2.

    `overall` sums over layers first, `by_layer` (L,) does not. No static vector carries it; the fidelity says how much
    of the effect is lost with it.
    """

    overall: float
    by_layer: tuple[float, ...]


@torch.no_grad()
def observe(base: Base, irm: IRM, samples: Sequence[Sample], on_progress: Progress = unwatched) -> Observed:
    """Run the injected model over the samples once."""
    total = torch.zeros(len(irm.layers), irm.hidden_size, device=base.model.device)
    power = torch.zeros(len(irm.layers), device=base.model.device)
    hidden: list[Tensor] = []
    count = 0
    output_of = {layer: index for index, layer in enumerate(irm.layers)}
    with inject(base.model, irm) as injection:
        for group in rows(samples):
            row = row_of(base.model, group)
            positions = row["positions"].to(base.model.device)

            def add(layer: int, vector: Tensor, positions: Tensor = positions) -> None:
                chosen = vector[0, positions].float()
                total[output_of[layer]] += chosen.sum(0)
                power[output_of[layer]] += chosen.square().sum()

            injection.observers[:] = [add]
            hidden += torch.split(answer_hidden(base.model, row), [sample.n_answer for sample in group])
            count += len(positions)
            on_progress(len(hidden), len(samples), "observing the IRM")
    return Observed(total / count, power / count, hidden)


def block_directions(outputs: Tensor, irm: IRM, n_layers: int) -> dict[int, Tensor]:
    """The mean outputs as one direction (H,) for each block 1..n_layers-1, where llama.cpp can add them.

    What is added at layer l, be it before or after its MLP, goes to the output of block l; layer 0's goes to block 1,
    the first that has a direction.
    """
    directions = {block: torch.zeros(irm.hidden_size, device=outputs.device) for block in range(1, n_layers)}
    for index, layer in enumerate(irm.layers):
        directions[max(layer, 1)] += outputs[index]
    return directions
