"""Choose the method, make the vector, measure it, write it with its provenance."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from torch import Tensor

import irm_lite
from irm_lite.base.fingerprint import fingerprint_gguf
from irm_lite.base.load import Base
from irm_lite.core.errors import InputError
from irm_lite.core.files.atomic import write_text
from irm_lite.core.types import Progress
from irm_lite.data.encoding import encode_all
from irm_lite.runs.trained import TrainedRun
from irm_lite.steering.control_vector import ControlVector
from irm_lite.steering.irm import IRM, StaticIRM
from irm_lite.steering.layers import format_layers, parse_layers
from irm_lite.vectors.comparison import GOOD_FIDELITY, Comparison
from irm_lite.vectors.distil import distil
from irm_lite.vectors.evaluation import measure
from irm_lite.vectors.mean import DependentShare, block_directions, observe

Method = Literal["auto", "distil", "mean", "exact"]


@dataclass(frozen=True)
class ExportResult:
    """A written vector and how well it does what the IRM does."""

    path: Path
    vector: ControlVector
    method: str
    comparison: Comparison
    dependent_share: DependentShare | None  # None: a static IRM, which depends on nothing

    @property
    def warning(self) -> str | None:
        if self.comparison.fidelity >= GOOD_FIDELITY:
            return None
        return f"fidelity {self.comparison.fidelity:.2f} is below {GOOD_FIDELITY}: static vectors carry only part of this IRM"


def export_vector(
    run: TrainedRun,
    out: Path,
    *,
    method: Method = "auto",
    layers: str = "all",
    epochs: float = 2.0,
    seed: int = 0,
    gguf: Path | None = None,
    on_progress: Progress = lambda done, of, what: None,
) -> ExportResult:
    """Write `out` (.gguf); for the run's own vector export/fidelity.json too.

    `distil` fits vectors to the IRM; `mean` takes its mean output; `exact` copies a static IRM trained at site
    `block`; `auto` is exact where that can be, else distil. `layers` are the blocks that get a vector, from 1. The
    fidelity is measured in llama.cpp on `gguf` (default: the base's own file), or in transformers where there is none.

    >>> from irm_lite import ControlVector, load_run
    >>> result = export_vector(load_run("runs/anger"), Path("anger.gguf"), method="mean")
    >>> result.comparison.fidelity <= 1.0
    True
    >>> ControlVector.load("anger.gguf").layers == result.vector.layers
    True
    """
    if out.suffix.lower() != ".gguf":
        raise InputError(f"{out} must end in .gguf", "llama.cpp takes no other")
    if not 0 < epochs <= 1000:
        raise InputError(f"--epochs {epochs} makes no sense", "give a number above 0, at most 1000")
    if not os.access(next(parent for parent in out.absolute().parents if parent.exists()), os.W_OK):
        raise InputError(f"{out} cannot be written", "choose another place")
    gguf = gguf or run.gguf_path
    runs_on = fingerprint_gguf(gguf) if gguf is not None else None
    if gguf is not None and runs_on is not None:  # before the work, not after it
        run.matches.append(run.match(runs_on, gguf.name))
    blocks = parse_layers(layers, run.fingerprint.n_layers, first=1)
    method = _method(run.irm, method, blocks)
    base, irm = run.base, run.irm
    train, _ = encode_all(base.tokenizer, run.dataset.train, run.config.max_length)
    validation, _ = encode_all(base.tokenizer, run.dataset.validation, run.config.max_length)
    if method == "exact":
        assert isinstance(irm, StaticIRM)
        directions = {layer: irm.vectors[index] for index, layer in enumerate(irm.layers) if layer in blocks}
        share = None
    elif method == "mean":
        observed = observe(base, irm, train, on_progress)
        mean, share = block_directions(observed.mean, irm, base.n_layers), observed.dependent_share
        directions = {block: mean[block] for block in blocks}
    else:
        distilled = distil(base, irm, train, validation, blocks, epochs=epochs, seed=seed, on_progress=on_progress)
        directions, share = distilled.directions, distilled.dependent_share
    vector = _vector(directions, base, irm, method, run.config.data)
    comparison = measure(run, vector, gguf, run.held_out, on_progress)
    vector.metadata["fidelity"] = comparison.fidelity
    vector.metadata["fidelity.on"] = (
        f"{comparison.measured_in}, {runs_on.quantisation if runs_on else base.fingerprint.quantisation}"
    )
    vector.save(out)
    result = ExportResult(out, vector, method, comparison, share)
    report = {
        "vector": str(out),
        "method": method,
        "gguf": str(gguf) if gguf else None,
        "input_dependent_share": asdict(share) if share else None,
        **comparison.to_dict(),
    }
    if out.absolute() == run.directory.default_vector.absolute():  # the run's own figure; others carry theirs in the file
        write_text(run.directory.fidelity, json.dumps(report, indent=2) + "\n")
    return result


def _method(irm: IRM, method: Method, blocks: tuple[int, ...]) -> Method:
    exact = isinstance(irm, StaticIRM) and irm.site == "block" and set(irm.layers) <= set(blocks)
    if method == "exact" and not exact:
        raise InputError(
            "this IRM cannot be copied exactly", "exact needs --irm static --site block and layers from 1; use --method distil"
        )
    return ("exact" if exact else "distil") if method == "auto" else method


def _vector(directions: dict[int, Tensor], base: Base, irm: IRM, method: str, data: str) -> ControlVector:
    fingerprint = base.fingerprint
    return ControlVector(
        {layer: direction.detach().float().cpu().numpy() for layer, direction in directions.items()},
        fingerprint.architecture,
        {
            "version": irm_lite.__version__,
            "method": method,
            "data": data,
            "kind": irm.kind,
            "site": irm.site,
            "layers": format_layers(irm.layers),
            "base.n_layers": fingerprint.n_layers,
            "base.hidden_size": fingerprint.hidden_size,
            "base.weights": fingerprint.weights,
            "base.quantisation": fingerprint.quantisation,
        },
    )
