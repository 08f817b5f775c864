"""What an IRM does at which node of llama.cpp's graph: where its input is read, where its outputs are added.

llama.cpp names the residual stream after the block `l_out-N`, N the 0-based block, and that after attention `ffn_inp-N` in most
graphs (base/architectures.py). A block's last map is known by the name of its weight, which the node's product was made with.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType

from irm_lite.base.architectures import of_gguf
from irm_lite.base.maps import LAST
from irm_lite.steering.irm import Site


@dataclass(frozen=True)
class Nodes:
    """How one architecture's graph calls the stream. `attn`: after attention; empty where it has no name. `h0`: the node at which
    an IRM's input is read. `through`: the input stands two operations before that node: the stream goes into its norm."""

    attn: str = "ffn_inp"
    h0: str = "ffn_inp"
    through: bool = False


def nodes_of(architecture: str, h0: Site) -> Nodes:
    """For a GGUF architecture, and an IRM that reads its input there; one that is not in the table is looked at as Llama's."""
    known = of_gguf(architecture)
    attn = known.node if known is not None else "ffn_inp"
    if h0 == "block":
        return Nodes(attn, "l_out")
    return Nodes(attn, attn or (known.seen_through if known else ""), through=not attn)


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

    Raises ValueError where the layers do not ascend within the model, or the site is unknown or has no node.
    """

    site: Site
    layers: tuple[int, ...]
    n_layers: int
    nodes: Nodes = field(default_factory=Nodes)
    maps: bool = False  # the IRM reads in each layer what the last map does, and adds to what that puts out

    def __post_init__(self) -> None:
        if self.site not in ("attn", "block") or not self.node(0)[:-2]:
            raise ValueError(f"no node of the graph is known for the site {self.site!r}")
        if not self.layers or self.layers != tuple(sorted(set(self.layers))):
            raise ValueError(f"the layers {self.layers} do not ascend, each once")
        if self.layers[0] < 0 or self.layers[-1] >= self.n_layers:
            raise ValueError(f"the layers {self.layers} leave a model of {self.n_layers} blocks")

    @cached_property
    def actions(self) -> Mapping[bytes, Action]:
        """By the node's name, in the order in which the graph comes to them: h0 is read before anything is added."""
        if self.maps:
            return MappingProxyType({self.node(layer): self._at(layer, index, False) for index, layer in enumerate(self.layers)})
        h0 = f"{self.nodes.h0}-0".encode()
        actions = {h0: Action(0, None, reads_h0=True, is_last=False)}
        for index, layer in enumerate(self.layers):
            node = self.node(layer)
            actions[node] = self._at(layer, index, node == h0)
        return MappingProxyType(actions)

    def _at(self, layer: int, index: int, reads_h0: bool) -> Action:
        return Action(layer, index, reads_h0, is_last=layer == self.n_layers - 1)

    def node(self, layer: int) -> bytes:
        """The name of the node where this layer's output is added; of a map, of its weight."""
        if self.maps:
            return f"blk.{layer}.{LAST}.weight".encode()
        return f"{self.nodes.attn if self.site == 'attn' else 'l_out'}-{layer}".encode()


@dataclass(frozen=True)
class Place:
    """Where a node of the plan stands in one graph: llama.cpp's graphs of single tokens are all alike."""

    position: int  # among the nodes that ggml asks about, from 1
    name: bytes
