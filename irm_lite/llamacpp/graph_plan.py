"""What an IRM does at which node of llama.cpp's graph: where its input is read, where its outputs are added.

llama.cpp names the residual stream after attention `ffn_inp-N` and after the block `l_out-N`, N the 0-based block.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType

from irm_lite.steering.irm import Site

_H0 = b"ffn_inp-0"
_NODES = {"attn": "ffn_inp", "block": "l_out"}


@dataclass(frozen=True)
class Action:
    """What happens at one node of a layer."""

    layer: int
    index: int | None  # which of the IRM's outputs is added; None: none is
    reads_h0: bool
    is_last: bool  # layer of the model: llama.cpp goes on with those rows alone whose logits were asked for


@dataclass(frozen=True)
class GraphPlan:
    """The nodes for an IRM of these layers at this site, in a model of `n_layers` blocks.

    Raises ValueError where the layers do not ascend within the model, or the site is unknown.
    """

    site: Site
    layers: tuple[int, ...]
    n_layers: int

    def __post_init__(self) -> None:
        if self.site not in _NODES:
            raise ValueError(f"no node of the graph is known for the site {self.site!r}")
        if not self.layers or self.layers != tuple(sorted(set(self.layers))):
            raise ValueError(f"the layers {self.layers} do not ascend, each once")
        if self.layers[0] < 0 or self.layers[-1] >= self.n_layers:
            raise ValueError(f"the layers {self.layers} leave a model of {self.n_layers} blocks")

    @cached_property
    def actions(self) -> Mapping[bytes, Action]:
        """By the node's name, in the order in which the graph comes to them: h0 is read before anything is added."""
        actions = {_H0: Action(0, None, reads_h0=True, is_last=False)}
        for index, layer in enumerate(self.layers):
            node = self.node(layer)
            actions[node] = Action(layer, index, reads_h0=node == _H0, is_last=layer == self.n_layers - 1)
        return MappingProxyType(actions)

    def node(self, layer: int) -> bytes:
        """The name of the node where this layer's output is added."""
        return f"{_NODES[self.site]}-{layer}".encode()


@dataclass(frozen=True)
class Place:
    """Where a node of the plan stands in one graph: llama.cpp's graphs of single tokens are all alike."""

    position: int  # among the nodes that ggml asks about, from 1
    name: bytes
