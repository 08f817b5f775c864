"""What is made an adapter of, on which model, and to where: checked before any work."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from irm_lite.base.fingerprint import Fingerprint, Match, fingerprint_gguf
from irm_lite.base.load import Base
from irm_lite.base.maps import ATTENTION, LAST, module_names, require_maps_of
from irm_lite.base.presets import published_name
from irm_lite.core.errors import InputError
from irm_lite.core.files.atomic import require_folder
from irm_lite.core.files.gguf_header import read_header
from irm_lite.core.version import __version__
from irm_lite.data.dataset import public_name
from irm_lite.runs.directory import require_unlinked
from irm_lite.steering.adapter import Adapter
from irm_lite.steering.control_vector import ControlVector
from irm_lite.steering.layers import parse_layers
from irm_lite.steering.steering_file import base_keys
from irm_lite.vectors.adapter.closed_form import ClosedForm
from irm_lite.vectors.adapter.place import (
    help_of,
    help_of_model,
    post_norms,
    post_norms_of,
    require_attention,
    require_maps,
    residual_scale,
    residual_scale_of,
)
from irm_lite.vectors.adapter.post_norm import PostNorm

if TYPE_CHECKING:
    from irm_lite.runs.trained import TrainedRun

_FILES = (".bin", ".ckpt", ".json", ".npz", ".onnx", ".pt", ".pth", ".safetensors", ".toml", ".txt", ".yaml", ".zip")


@dataclass(frozen=True)
class Job:
    """A model that can carry steering in an adapter, and a place for that."""

    out: Path
    fingerprint: Fingerprint
    names: Mapping[str, str]  # PEFT's, by GGUF's; empty: none are known, and a .gguf is written
    base_name: str
    scale: float  # of the residual stream
    help_with: Mapping[int, str]  # by block
    norms: Mapping[int, PostNorm]  # by block, behind the last map
    kept: dict[str, str | int | float]  # keys
    matches: list[Match]

    def keys(self, method: str) -> dict[str, str | int | float]:
        """Its provenance; the fidelity is not known yet."""
        kept = {key: value for key, value in self.kept.items() if not key.startswith(("base.", "fidelity"))}
        return {**kept, "version": __version__, "method": method, **base_keys(self.fingerprint)}

    def adapter(self, made: ClosedForm, method: str = "closed form") -> Adapter:
        """What was fitted, with its provenance and errors."""
        keys = self.keys(method)
        keys |= {
            "error": sum(fit.error for fit in made.fits) / len(made.fits),
            "error.worst": max(fit.error for fit in made.fits),
        }
        rank = max(each.rank for each in made.factors.values())  # what is divided by, so that scale 1 is B A x
        return Adapter(made.factors, self.fingerprint.architecture, float(rank), keys)


def is_gguf(out: Path) -> bool:
    return out.suffix.lower() == ".gguf"


def require_out(out: Path) -> None:
    """Raise InputError where `out` is a file of another kind, or cannot be written."""
    if out.suffix.lower() in _FILES:  # other dots are of a folder's name: anger-v1.0
        raise InputError(f"{out} is neither a .gguf nor a folder", "name a file that ends in .gguf, or a folder for PEFT")
    if is_gguf(out) and out.is_dir():
        raise InputError(f"{out} is a folder", "name a file that ends in .gguf, or another folder for PEFT")
    require_unlinked(out.parent)
    require_folder(out.parent)


def require_place(run: "TrainedRun", out: Path, gguf: Path | None, layers: str) -> None:
    """Raise InputError where no vector of the run at these blocks could be carried by an adapter in `out`."""
    from irm_lite.base.sources.gguf_weights import skeleton

    require_out(out)
    gguf = gguf or run.gguf_path
    chosen = parse_layers(layers, run.fingerprint.n_layers, first=1)
    blocks = tuple(block for block in chosen if block in run.irm.layers)  # others may get no vector
    if gguf is None:
        names = module_names(run.base.model, run.base.fingerprint.architecture)
        require_maps_of(run.base.model, names, blocks)
        return
    header = read_header(gguf)
    require_maps(header, blocks)
    if not is_gguf(out):
        module_names(skeleton(gguf), header.architecture)


def job_on(gguf: Path, vector: ControlVector, out: Path, name: str) -> Job:
    """Checked before any work."""
    from irm_lite.base.sources.gguf_weights import skeleton

    require_out(out)
    header = read_header(gguf)
    fingerprint = fingerprint_gguf(header)
    match = vector.require_fit(fingerprint, gguf.name)
    require_maps(header, vector.layers)
    names = {} if is_gguf(out) else module_names(skeleton(gguf), fingerprint.architecture)
    norms = post_norms(header, vector.layers)
    scale = residual_scale(header)
    kept = dict(vector.metadata)
    return Job(out, fingerprint, names, published_name(name), scale, help_of(header), norms, kept, [match])


def job_in_transformers(base: Base, vector: ControlVector, out: Path, name: str) -> Job:
    require_out(out)
    match = vector.require_fit(base.fingerprint, base.name)
    names = module_names(base.model, base.fingerprint.architecture)
    require_maps_of(base.model, names, vector.layers)
    norms, helping = post_norms_of(base.model, names, vector.layers), help_of_model(base.model, names)
    kept, scale = dict(vector.metadata), residual_scale_of(base.model)
    return Job(out, base.fingerprint, names, published_name(name), scale, helping, norms, kept, [match])


def job_of_lora(run: "TrainedRun", out: Path, gguf: Path | None) -> Job:
    """An IRM that is a LoRA already, beside the last maps of its layers."""
    from irm_lite.base.sources.gguf_weights import skeleton

    require_out(out)
    irm, name = run.irm, published_name(run.config.model)
    kept: dict[str, str | int | float] = {"data": public_name(run.config.data), "kind": irm.kind, "site": irm.site}
    if gguf is None:
        base = run.base
        names = module_names(base.model, base.fingerprint.architecture)
        require_maps_of(base.model, names, irm.layers)
        return Job(out, base.fingerprint, names, name, 1.0, {}, {}, kept, [])
    header = read_header(gguf)
    require_maps(header, irm.layers)
    fingerprint = fingerprint_gguf(header)
    names = {} if is_gguf(out) else module_names(skeleton(gguf), fingerprint.architecture)
    return Job(out, fingerprint, names, name, 1.0, {}, {}, kept, [run.match(fingerprint, gguf.name)])


def job_of_irm(run: "TrainedRun", base: Base, out: Path, gguf: Path | None) -> Job:
    """An IRM itself, beside the maps of its site: fitted on `base` in transformers, for `gguf` if there is one."""
    require_out(out)
    irm = run.irm
    names = module_names(base.model, base.fingerprint.architecture)
    if irm.site == "attn":
        require_attention(base.model, names, irm.layers)
    else:
        require_maps_of(base.model, names, irm.layers)
        if post_norms_of(base.model, names, irm.layers):
            kind = type(base.model).__name__
            raise InputError(f"a {kind} normalises what its blocks add", "leave out --rank: the exported vector")
    fingerprint, matches = base.fingerprint, []
    if gguf is not None:
        header = read_header(gguf)
        require_maps(header, irm.layers, ATTENTION if irm.site == "attn" else LAST)
        fingerprint = fingerprint_gguf(header)
        matches = [run.match(fingerprint, gguf.name)]
    name = published_name(run.config.model)
    kept: dict[str, str | int | float] = {"data": public_name(run.config.data), "kind": irm.kind, "site": irm.site}
    return Job(out, fingerprint, names, name, residual_scale_of(base.model), {}, {}, kept, matches)
