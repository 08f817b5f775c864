"""The arithmetic that training an IRM or adapters on a frozen base cannot do without.

A weight that tokens are multiplied with costs 2 FLOPs a token in the forward pass and 2 for the gradient of its input; the
2 for its own gradient (which make the usual 6 N) only trained weights need. So 4 N for the base's blocks at each real
token, 4 N for its head at each answer token, 6 N for what is trained. Attention's scores, padding, logits that nobody
asked for and recomputed activations count for nothing: that a contender spends time on them is what shows.
"""

from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedModel

from irm_lite.base.architecture import decoder_layers


@dataclass(frozen=True)
class Weights:
    """Numbers of weights that tokens are multiplied with. Take them before adapters are put in."""

    blocks: int
    head: int

    @classmethod
    def of(cls, model: PreTrainedModel) -> "Weights":
        linears = [module for module in decoder_layers(model).modules() if isinstance(module, nn.Linear)]
        head = model.get_output_embeddings()
        # The features, since 4-bit weights are stored two to a byte.
        return cls(sum(each.in_features * each.out_features for each in linears), head.in_features * head.out_features)

    def flops(self, trained: int, real: int, supervised: int) -> int:
        """FLOPs of training `trained` weights on that many tokens."""
        return 4 * self.blocks * real + 4 * self.head * supervised + 6 * trained * real
