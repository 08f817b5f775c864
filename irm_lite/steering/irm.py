"""The networks, one a kind. Each gives, for a token, a vector to add at every injected layer.

An IRM reads layer 0's hidden state after attention, h0 (B, T, H), where the architecture has one (base/stream.py), and gives
(B, T, L, H); `lora` alone reads in each block what its last map reads. It is split in two calls:
`encode` once a forward, `layer_output` when the layer is reached, so that `lite` never holds L vectors a token.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from irm_lite.config import KINDS, Kind, Reads
from irm_lite.core.errors import InputError

if TYPE_CHECKING:
    from irm_lite.base.fingerprint import Fingerprint


Site = Literal["attn", "block"]


class IRM(nn.Module):
    """Base class. `layers` are the injected 0-based decoder blocks, `site` is where their vectors are added."""

    kind: ClassVar[Kind]
    _mask: Tensor | None
    made_on: "Fingerprint | None" = None  # the base that it was trained on, where that is known
    h0: Site = "attn"  # where its input is read: layer 0's stream after attention, or what comes out of block 0

    def __init__(self, hidden_size: int, layers: tuple[int, ...], site: Site) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.layers = layers
        self.site: Site = site
        self.masked: tuple[int, ...] = ()  # indices whose outputs are zero
        self.register_buffer("_mask", None, persistent=False)  # (H,), 0 there and 1 elsewhere; it stands among the options

    @property
    def options(self) -> dict[str, Any]:
        """What `build_irm` needs beside kind, hidden size, layers and site."""
        return ({} if self.h0 == "attn" else {"h0": self.h0}) | ({"mask": list(self.masked)} if self.masked else {})

    def mask(self, indices: Sequence[int]) -> None:
        """Have these indices' outputs zero from now on: training cannot write there. Raises InputError where there is none such."""
        self.masked = tuple(sorted(set(indices)))
        if any(not 0 <= index < self.hidden_size for index in self.masked):
            raise InputError(f"there is no index {self.masked[-1]} to mask", f"the hidden size is {self.hidden_size}")
        if len(self.masked) == self.hidden_size:
            raise InputError("an IRM whose indices are all masked does nothing", "mask fewer")
        self._mask = None
        if self.masked:
            device = next(self.parameters()).device
            self._mask = torch.ones(self.hidden_size, device="cpu" if device.type == "meta" else device)
            self._mask[list(self.masked)] = 0

    def _kept(self, values: Tensor) -> Tensor:
        """Values (..., H) with zeros where it is masked."""
        return values if self._mask is None else values * self._mask.to(values.dtype)

    @property
    def reads(self) -> Reads:
        """What its outputs depend on."""
        return KINDS[self.kind].reads

    @property
    def leaves_as(self) -> Literal["vector", "adapter"]:
        return KINDS[self.kind].leaves_as

    def encode(self, h0: Tensor) -> Any:
        """What `layer_output` works from, of layer 0's post-attention hidden state h0 (B, T, H)."""
        raise NotImplementedError

    def layer_output(self, code: Any, index: int) -> Tensor:
        """(B, T, H) to add at layer `self.layers[index]`; `code` is what `encode` returned."""
        raise NotImplementedError

    def outputs(self, code: Any) -> Tensor:
        """(B, T, L, H): `layer_output` of all layers."""
        return torch.stack([self.layer_output(code, index) for index in range(len(self.layers))], dim=-2)

    def moments(self, code: Any, counts: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Of each layer's outputs over all tokens, each `counts` (T,) times (None: once): the mean (L, H), and the mean squared
        distance from it (L,)."""
        vectors = [self.layer_output(code, index).flatten(0, -2).float() for index in range(len(self.layers))]
        share = _share(counts, vectors[0])
        means = [share @ each for each in vectors]
        spreads = [share @ (each - mean).square().sum(-1) for each, mean in zip(vectors, means, strict=True)]
        return torch.stack(means), torch.stack(spreads)

    def forward(self, h0: Tensor) -> Tensor:
        """All layers' outputs: (B, T, H) -> (B, T, L, H)."""
        return self.outputs(self.encode(h0))


class ScaledIRM(IRM):
    """One whose outputs are in units of the residual stream: the weights' output times `scale` (L,), how large the stream is there.

    So one learning rate fits models whose streams differ tenfold (docs/log.md), and early layers as well as late ones, which are
    ten times as large. All ones (the default): the weights' outputs as they are.
    """

    scale: Tensor

    def __init__(self, hidden_size: int, layers: tuple[int, ...], site: Site, scale: Sequence[float] | None = None) -> None:
        super().__init__(hidden_size, layers, site)
        given = torch.tensor([1.0] * len(layers) if scale is None else list(scale), device="cpu")
        if given.shape != (len(layers),) or not bool((given.isfinite() & (given > 0)).all()):
            raise InputError(f"an IRM on {len(layers)} layers takes as many scales above 0", "give one a layer")
        self.register_buffer("scale", given, persistent=False)  # it stands among the options

    @property
    def options(self) -> dict[str, Any]:
        return super().options | ({} if bool((self.scale == 1).all()) else {"scale": self.scale.tolist()})


class PaperIRM(IRM):
    """The paper's MLP, as its code has it: H -> 3H, three times 3H -> 3H, -> H * L; ReLU between, none on the output.

    PyTorch's default initialisation, so training does not start at the unchanged base. The output is laid out
    (H, L): the layer is the fastest axis, as in the authors' checkpoints.
    """

    kind = "paper"

    def __init__(self, hidden_size: int, layers: tuple[int, ...], site: Site) -> None:
        super().__init__(hidden_size, layers, site)
        width = 3 * hidden_size
        self.trunk = nn.Sequential(nn.Linear(hidden_size, width), nn.ReLU())
        for _ in range(3):
            self.trunk.extend([nn.Linear(width, width), nn.ReLU()])
        self.head = nn.Linear(width, hidden_size * len(layers))

    def encode(self, h0: Tensor) -> tuple[Tensor, ...]:
        """All layers' outputs, L times (B, T, H): layer by layer, the backward pass would fill L gradients of the whole head."""
        flat: Tensor = self.head(self.trunk(h0.to(self.head.weight.dtype)))
        by_layer = self._kept(flat.view(*flat.shape[:-1], self.hidden_size, len(self.layers)).movedim(-1, 0))
        return by_layer.contiguous().unbind(0)

    def layer_output(self, code: tuple[Tensor, ...], index: int) -> Tensor:
        return code[index]

    def outputs(self, code: tuple[Tensor, ...]) -> Tensor:
        return torch.stack(code, dim=-2)


class LiteIRM(ScaledIRM):
    """A trunk of two layers and, for each injected layer, a head of low rank whose last factor starts at zero.

    h0 is first brought to unit RMS, since the residual stream's scale differs by orders of magnitude between models.
    """

    kind = "lite"

    def __init__(
        self,
        hidden_size: int,
        layers: tuple[int, ...],
        site: Site,
        width: int = 256,
        rank: int = 16,
        scale: Sequence[float] | None = None,
    ) -> None:
        super().__init__(hidden_size, layers, site, scale)
        self.width = width
        self.rank = rank
        self.trunk = nn.Sequential(nn.Linear(hidden_size, self.width), nn.SiLU(), nn.Linear(self.width, self.width), nn.SiLU())
        self.down = nn.Parameter(torch.empty(len(layers), rank, self.width))
        self.up = nn.Parameter(torch.zeros(len(layers), hidden_size, rank))
        self.bias = nn.Parameter(torch.zeros(len(layers), hidden_size))
        nn.init.uniform_(self.down, -1 / math.sqrt(self.width), 1 / math.sqrt(self.width))  # nn.Linear's default

    @property
    def options(self) -> dict[str, Any]:
        return {"width": self.width, "rank": self.rank, **super().options}

    def encode(self, h0: Tensor) -> Tensor:
        h0 = h0.to(self.up.dtype)
        code: Tensor = self.trunk(F.rms_norm(h0, (self.hidden_size,)))
        return code  # (B, T, width)

    def layer_output(self, code: Tensor, index: int) -> Tensor:
        scale = self.scale[index]
        return self._kept(F.linear(F.linear(code, self.down[index]) * scale, self.up[index], self.bias[index] * scale))

    def outputs(self, code: Tensor) -> Tensor:
        low = F.linear(code, self.down.flatten(0, 1)).view(-1, len(self.layers), self.rank)  # (B T, L, rank)
        bias, up = self.bias[:, None] * self.scale[:, None, None], self.up * self.scale[:, None, None]
        by_layer = torch.baddbmm(bias, low.transpose(0, 1), up.transpose(1, 2))  # (L, B T, H)
        return self._kept(by_layer.transpose(0, 1).view(*code.shape[:-1], len(self.layers), self.hidden_size))

    def moments(self, code: Tensor, counts: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """As of the outputs, without making them: up's share of a covariance C (rank, rank) is the trace of up C up^T."""
        low = F.linear(code, self.down.flatten(0, 1)).view(-1, len(self.layers), self.rank).transpose(0, 1).float()
        scale = self.scale.float()
        share = _share(counts, low)[:, None]  # (T, 1)
        up, middle = self._kept(self.up.float().mT).mT, (share * low).sum(1, keepdim=True)
        centred = share.sqrt() * (low - middle)
        covariance = centred.mT @ centred  # (L, rank, rank)
        spreads = (covariance * (up.mT @ up)).sum((1, 2))
        return scale[:, None] * (self._kept(self.bias.float()) + (up @ middle.mT)[..., 0]), scale**2 * spreads


class StaticIRM(ScaledIRM):
    """One vector a layer, whatever the input: a control vector in training."""

    kind = "static"

    def __init__(self, hidden_size: int, layers: tuple[int, ...], site: Site, scale: Sequence[float] | None = None) -> None:
        super().__init__(hidden_size, layers, site, scale)
        self.vectors = nn.Parameter(torch.zeros(len(layers), hidden_size))  # in units of `scale`

    @property
    def added(self) -> Tensor:
        """What is added at each layer, (L, H)."""
        return self._kept(self.vectors * self.scale[:, None])

    def encode(self, h0: Tensor) -> Tensor:
        return h0  # unused: only its shape and device matter

    def layer_output(self, code: Tensor, index: int) -> Tensor:
        return self._kept(self.vectors[index] * self.scale[index]).expand(*code.shape[:-1], self.hidden_size)

    def outputs(self, code: Tensor) -> Tensor:
        return self.added.expand(*code.shape[:-1], *self.vectors.shape)

    def moments(self, code: Tensor, counts: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.added.float(), self.vectors.new_zeros(len(self.layers), dtype=torch.float32)


class LoraIRM(IRM):
    """LoRA (Hu et al. 2021, arXiv 2106.09685) beside each block's last linear map: what is added to the block's output is a map of
    low rank from what that map reads. It starts as PEFT's does, at no effect, so that `export --as adapter` copies it.

    Its `code` is what the layer's own map reads, (B, T, `inner`): there is none that all layers share.
    """

    kind = "lora"
    ALPHA = 8.0  # PEFT's: what is added is ALPHA / rank * up down x

    def __init__(self, hidden_size: int, layers: tuple[int, ...], site: Site, inner: int, rank: int = 4) -> None:
        super().__init__(hidden_size, layers, site)
        if site != "block":
            raise InputError("a lora IRM stands beside the blocks' last maps", "give site block")
        self.inner, self.rank = inner, rank
        self.down = nn.Parameter(torch.empty(len(layers), rank, inner))
        self.up = nn.Parameter(torch.zeros(len(layers), hidden_size, rank))
        nn.init.uniform_(self.down, -1 / math.sqrt(inner), 1 / math.sqrt(inner))  # nn.Linear's default, and PEFT's

    @property
    def options(self) -> dict[str, Any]:
        return {"inner": self.inner, "rank": self.rank, **super().options}

    def factors(self, index: int) -> tuple[Tensor, Tensor]:
        """A layer's down (rank, inner) and up (H, rank), as a LoRA adapter of alpha ALPHA has them."""
        return self.down[index].detach(), self._kept(self.up[index].detach().mT).mT

    def encode(self, h0: Tensor) -> Tensor:
        return h0  # unused

    def layer_output(self, code: Tensor, index: int) -> Tensor:
        low = F.linear(code, self.down[index].to(code.dtype)).to(self.up.dtype)  # autograd keeps the map's input as it is
        return self._kept(F.linear(low, self.up[index]) * (self.ALPHA / self.rank))


def _share(counts: Tensor | None, outputs: Tensor) -> Tensor:
    """The weight of each token (T,) in a mean over them, of outputs (..., T, R)."""
    if counts is None:
        tokens = outputs.shape[-2]
        return torch.full((tokens,), 1 / tokens, device=outputs.device)
    return counts / counts.sum()


NETWORKS: dict[str, type[IRM]] = {each.kind: each for each in (PaperIRM, LiteIRM, StaticIRM, LoraIRM)}


def build_irm(kind: str, hidden_size: int, layers: tuple[int, ...], site: Site = "attn", **options: Any) -> IRM:
    """A fresh IRM. `options` are `width` and `rank` of `lite`, `scale` of `lite` and `static`, `rank` and `inner` of `lora` (what a
    block's last map reads), `h0`, where the input is read ("attn"), and `mask`, indices whose outputs stay zero. Raises InputError
    on an unknown kind, no layers, or what does not fit.
    """
    h0, masked = options.pop("h0", "attn"), options.pop("mask", [])
    if kind not in NETWORKS:
        raise InputError(f"there is no IRM kind {kind!r}", f"choose one of {', '.join(NETWORKS)}")
    if not {site, h0} <= {"attn", "block"}:
        raise InputError(f"there is no site {site!r} that reads {h0!r}", "choose attn or block")
    if not layers:
        raise InputError("an IRM needs at least one layer", "name some with --layers")
    if layers != tuple(sorted(set(layers))):  # files keep the layers as a set of ranges
        raise InputError(f"an IRM's layers must ascend, each once, not {layers}", "sort them")
    irm = NETWORKS[kind](hidden_size, layers, site, **options)
    irm.h0 = h0
    irm.mask(masked)
    return irm
