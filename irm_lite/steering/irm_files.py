"""An IRM's files, irm.safetensors and irm.json: written, read, checked."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from irm_lite.config import Kind
from irm_lite.core.errors import RunError, reason
from irm_lite.core.files.atomic import atomic_path, write_text
from irm_lite.core.files.reading import read_json, require_ordinary
from irm_lite.core.files.tensors import save_tensors
from irm_lite.steering.irm import IRM, Site, build_irm
from irm_lite.steering.layers import format_layers, parse_layers

FORMAT = 3  # 2 of an IRM without masked indices, 1 of one without a scale too: an older irm-lite reads those
_MOST_LAYERS = 4096
_HEADER = 1 << 20  # bytes that a safetensors file may have beside its tensors


def save_irm(irm: IRM, folder: Path) -> None:
    """Write irm.safetensors and irm.json into `folder`, each atomically."""
    with atomic_path(folder / "irm.safetensors") as temporary:
        save_tensors(temporary, irm.state_dict())
        with temporary.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    description = {
        "format": FORMAT if irm.masked else 2 if "scale" in irm.options else 1,
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
        return irm.float().to(device)


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
        raise RunError(f"the IRM in {folder} is damaged ({reason(error)})", "train it again") from None
