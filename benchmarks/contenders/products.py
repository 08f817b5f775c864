"""Nothing but the matrix products that a training cannot do without (flops.py): what this machine can do, in the same rounds.

Each linear map of the base's blocks is multiplied with a matrix of the batch's real tokens, forward and for the gradient of its
input, and its head with the answer tokens; unquantised weights, in the number format of the contenders that are held against it.
"""

import torch
from torch import nn

from contenders.samples import epochs, real_tokens, supervised_tokens
from contenders.task import BATCH_SIZE, SEED
from contenders.turns import Turns
from irm_lite.base.architecture import decoder_layers
from irm_lite.base.load import Base
from irm_lite.data.encoding import Sample


@torch.no_grad()
def run(base: Base, train: list[Sample], turns: Turns) -> None:
    """Multiply until the turns are over."""
    linears = [each.weight for each in decoder_layers(base.model).modules() if isinstance(each, nn.Linear)]
    head = base.model.get_output_embeddings().weight
    turns.begin(0)
    for batches in epochs(train, BATCH_SIZE, SEED):
        for batch in batches:
            real, supervised = real_tokens(batch, turns.limit), supervised_tokens(batch, turns.limit)
            for weight in linears:
                multiply(weight, real)
            multiply(head, supervised)
            turns.step(real)


def multiply(weight: torch.Tensor, rows: int) -> None:
    """A weight (out, in) with `rows` rows of inputs, and with as many of gradients."""
    out = weight.new_ones(rows, weight.shape[1]) @ weight.T
    out @ weight
