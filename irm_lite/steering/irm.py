"""The networks: `paper`, `lite` and `static`. Each gives, for a token, a vector to add at every injected layer.

An IRM reads layer 0's hidden state after attention, h0 (B, T, H), and gives (B, T, L, H). It is split in two calls:
`encode` once a forward, `layer_output` when the layer is reached, so that `lite` never holds L vectors a token.
"""

import hashlib
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from irm_lite.core.errors import InputError, RunError
from irm_lite.core.files.atomic import atomic_path, write_text
from irm_lite.core.files.reading import read_json, require_ordinary
from irm_lite.core.files.tensors import save_tensors
from irm_lite.steering.layers import format_layers, parse_layers

if TYPE_CHECKING:
    from irm_lite.base.fingerprint import Fingerprint

Kind = Literal["paper", "lite", "static"]
Site = Literal["attn", "block"]

FORMAT = 1
_MOST_LAYERS = 4096
_HEADER = 1 << 20  # bytes that a safetensors file may have beside its tensors


class IRM(nn.Module):
    """Base class. `layers` are the injected 0-based decoder blocks, `site` is where their vectors are added."""

    kind: ClassVar[Kind]
    made_on: "Fingerprint | None" = None  # the base that it was trained on, where a run has told

    def __init__(self, hidden_size: int, layers: tuple[int, ...], site: Site) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.layers = layers
        self.site: Site = site

    @property
    def options(self) -> dict[str, Any]:
        """What `build_irm` needs beside kind, hidden size, layers and site."""
        return {}

    def encode(self, h0: Tensor) -> Any:
        """What `layer_output` works from, of layer 0's post-attention hidden state h0 (B, T, H)."""
        raise NotImplementedError

    def layer_output(self, code: Any, index: int) -> Tensor:
        """(B, T, H) to add at layer `self.layers[index]`; `code` is what `encode` returned."""
        raise NotImplementedError

    def outputs(self, code: Any) -> Tensor:
        """(B, T, L, H): `layer_output` of all layers at once, in a few calls instead of L."""
        raise NotImplementedError

    def moments(self, code: Any) -> tuple[Tensor, Tensor]:
        """Of each layer's outputs over all tokens: their means (L, H), and their mean squared distances from these (L,)."""
        vectors = [self.layer_output(code, index).flatten(0, -2).float() for index in range(len(self.layers))]
        means = [each.mean(0) for each in vectors]
        spreads = [(each - mean).square().sum(-1).mean() for each, mean in zip(vectors, means, strict=True)]
        return torch.stack(means), torch.stack(spreads)

    def forward(self, h0: Tensor) -> Tensor:
        """All layers' outputs: (B, T, H) -> (B, T, L, H)."""
        return self.outputs(self.encode(h0))


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
        by_layer = flat.view(*flat.shape[:-1], self.hidden_size, len(self.layers)).movedim(-1, 0)
        return by_layer.contiguous().unbind(0)

    def layer_output(self, code: tuple[Tensor, ...], index: int) -> Tensor:
        return code[index]

    def outputs(self, code: tuple[Tensor, ...]) -> Tensor:
        return torch.stack(code, dim=-2)


class LiteIRM(IRM):
    """A trunk of two layers and, for each injected layer, a head of low rank whose last factor starts at zero.

    h0 is first brought to unit RMS, since the residual stream's scale differs by orders of magnitude between models.
    """

    kind = "lite"

    def __init__(self, hidden_size: int, layers: tuple[int, ...], site: Site, width: int = 256, rank: int = 16) -> None:
        super().__init__(hidden_size, layers, site)
        self.width = width
        self.rank = rank
        self.trunk = nn.Sequential(nn.Linear(hidden_size, self.width), nn.SiLU(), nn.Linear(self.width, self.width), nn.SiLU())
        self.down = nn.Parameter(torch.empty(len(layers), rank, self.width))
        self.up = nn.Parameter(torch.zeros(len(layers), hidden_size, rank))
        self.bias = nn.Parameter(torch.zeros(len(layers), hidden_size))
        nn.init.uniform_(self.down, -1 / math.sqrt(self.width), 1 / math.sqrt(self.width))  # nn.Linear's default

    @property
    def options(self) -> dict[str, Any]:
        return {"width": self.width, "rank": self.rank}

    def encode(self, h0: Tensor) -> Tensor:
        h0 = h0.to(self.up.dtype)
        code: Tensor = self.trunk(F.rms_norm(h0, (self.hidden_size,)))
        return code  # (B, T, width)

    def layer_output(self, code: Tensor, index: int) -> Tensor:
        return F.linear(F.linear(code, self.down[index]), self.up[index], self.bias[index])

    def outputs(self, code: Tensor) -> Tensor:
        low = F.linear(code, self.down.flatten(0, 1)).view(-1, len(self.layers), self.rank)  # (B T, L, rank)
        by_layer = torch.baddbmm(self.bias[:, None], low.transpose(0, 1), self.up.transpose(1, 2))  # (L, B T, H)
        return by_layer.transpose(0, 1).view(*code.shape[:-1], len(self.layers), self.hidden_size)

    def moments(self, code: Tensor) -> tuple[Tensor, Tensor]:
        """As of the outputs, without making them: up's share of a covariance C (rank, rank) is the trace of up C up^T."""
        low = F.linear(code, self.down.flatten(0, 1)).view(-1, len(self.layers), self.rank).transpose(0, 1).float()
        up, middle = self.up.float(), low.mean(1, keepdim=True)
        centred = low - middle
        covariance = centred.mT @ centred / low.shape[1]  # (L, rank, rank)
        spreads = (covariance * (up.mT @ up)).sum((1, 2))
        return self.bias.float() + (up @ middle.mT)[..., 0], spreads


class StaticIRM(IRM):
    """One vector a layer, whatever the input: a control vector in training."""

    kind = "static"

    def __init__(self, hidden_size: int, layers: tuple[int, ...], site: Site) -> None:
        super().__init__(hidden_size, layers, site)
        self.vectors = nn.Parameter(torch.zeros(len(layers), hidden_size))

    def encode(self, h0: Tensor) -> Tensor:
        return h0  # unused: only its shape and device matter

    def layer_output(self, code: Tensor, index: int) -> Tensor:
        return self.vectors[index].expand(*code.shape[:-1], self.hidden_size)

    def outputs(self, code: Tensor) -> Tensor:
        return self.vectors.expand(*code.shape[:-1], *self.vectors.shape)

    def moments(self, code: Tensor) -> tuple[Tensor, Tensor]:
        return self.vectors.float(), self.vectors.new_zeros(len(self.layers), dtype=torch.float32)


_KINDS: dict[str, type[IRM]] = {"paper": PaperIRM, "lite": LiteIRM, "static": StaticIRM}


def build_irm(kind: str, hidden_size: int, layers: tuple[int, ...], site: Site = "attn", **options: Any) -> IRM:
    """A fresh IRM. `options` are `width` and `rank` of `lite`. Raises InputError on an unknown kind or no layers."""
    if kind not in _KINDS:
        raise InputError(f"there is no IRM kind {kind!r}", f"choose one of {', '.join(_KINDS)}")
    if site not in ("attn", "block"):
        raise InputError(f"there is no site {site!r}", "choose attn or block")
    if not layers:
        raise InputError("an IRM needs at least one layer", "name some with --layers")
    if layers != tuple(sorted(set(layers))):  # files keep the layers as a set of ranges
        raise InputError(f"an IRM's layers must ascend, each once, not {layers}", "sort them")
    return _KINDS[kind](hidden_size, layers, site, **options)


def save_irm(irm: IRM, folder: Path) -> None:
    """Write irm.safetensors and irm.json into `folder`, each atomically."""
    with atomic_path(folder / "irm.safetensors") as temporary:
        save_tensors(temporary, irm.state_dict())
        with temporary.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    description = {
        "format": FORMAT,
        "kind": irm.kind,
        "hidden_size": irm.hidden_size,
        "layers": format_layers(irm.layers),
        "site": irm.site,
        "options": irm.options,
        "sha256": digest,  # of irm.safetensors: a recording names the IRM that it is of
    }
    write_text(folder / "irm.json", json.dumps(description, indent=2) + "\n")


def load_irm(folder: Path, device: str | torch.device = "cpu") -> IRM:
    """Read what `save_irm` wrote, as float32 whatever it was trained in. Raises RunError where it is missing, damaged, newer."""
    from safetensors.torch import load_file

    saved = read_saved(folder)
    with _refusing(folder):
        with torch.device("meta"):
            irm = build_irm(saved.kind, saved.hidden_size, saved.layers, saved.site, **saved.options)
        require_ordinary(folder / "irm.safetensors", 4 * sum(each.numel() for each in irm.parameters()) + _HEADER)
        irm.load_state_dict(load_file(folder / "irm.safetensors", device=str(device)), assign=True)
        if not all(torch.isfinite(parameter).all() for parameter in irm.parameters()):
            raise ValueError("it holds NaN or infinity")
        return irm.float()


@dataclass(frozen=True)
class SavedIRM:
    """What irm.json says of an IRM, without its weights. `digest` is "" where an older irm-lite wrote it."""

    kind: Kind
    hidden_size: int
    layers: tuple[int, ...]
    site: Site
    options: dict[str, Any]
    digest: str


def read_saved(folder: Path) -> SavedIRM:
    """Read the description of what `save_irm` wrote. Raises RunError as `load_irm` does."""
    with _refusing(folder):
        document: dict[str, Any] = read_json(folder / "irm.json", 1 << 20)
        if document["format"] > FORMAT:
            raise RunError(f"{folder} holds an IRM of a newer irm-lite", "pip install -U irm-lite")
        return SavedIRM(
            document["kind"],
            int(document["hidden_size"]),
            parse_layers(document["layers"], _MOST_LAYERS),
            document["site"],
            dict(document["options"]),
            str(document.get("sha256", "")),
        )


def untrained(saved: SavedIRM, seed: int) -> IRM:
    """The IRM that a training with this seed started from; the generator's state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_irm(saved.kind, saved.hidden_size, saved.layers, saved.site, **saved.options)


@contextmanager
def _refusing(folder: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        missing = Path(error.filename).name if error.filename else "irm.safetensors"
        raise RunError(
            f"{folder} holds no trained IRM yet ({missing} is missing)", "train it, or go on with irm-lite train --resume"
        ) from None
    except RunError:
        raise
    except Exception as error:  # whatever is wrong inside, the file is not what save_irm wrote
        raise RunError(f"the IRM in {folder} is damaged ({' '.join(str(error).split())[:200]})", "train it again") from None
