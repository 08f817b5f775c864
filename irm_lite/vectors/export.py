"""A run's control vector: the method chosen, the vector made, measured, and written with its provenance."""

import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from irm_lite.base.fingerprint import fingerprint_gguf
from irm_lite.base.stream import stream_of
from irm_lite.core.errors import InputError
from irm_lite.core.files.atomic import require_folder
from irm_lite.core.machine.give_way import giving_way
from irm_lite.core.types import Progress, unwatched
from irm_lite.core.version import __version__
from irm_lite.data.dataset import public_name
from irm_lite.data.encoding import encode_all
from irm_lite.llamacpp.prompts import PromptCheck
from irm_lite.runs.directory import require_unlinked
from irm_lite.runs.trained import TrainedRun
from irm_lite.steering.control_vector import ControlVector
from irm_lite.steering.irm import IRM, StaticIRM
from irm_lite.steering.layers import format_layers, parse_layers
from irm_lite.steering.steering_file import base_keys
from irm_lite.vectors.agreement_check import disagreement_on
from irm_lite.vectors.distil import ENOUGH, Fitting, distil
from irm_lite.vectors.evaluation import measure
from irm_lite.vectors.fidelity.comparison import GOOD_FIDELITY, Comparison
from irm_lite.vectors.kept_figures import keep_figures, kept_figures
from irm_lite.vectors.mean import DependentShare, block_directions, observe
from irm_lite.vectors.prompt_check import prompts_on

Method = Literal["auto", "distil", "mean", "exact"]


@dataclass(frozen=True)
class ExportResult:
    """A written vector and how well it does what the IRM does."""

    path: Path
    gguf: Path | None  # that it was measured on
    vector: ControlVector
    method: str
    comparison: Comparison
    dependent_share: DependentShare | None  # None: a static IRM, which depends on nothing
    mean_loses: float | None  # the share of what the IRM does that its mean loses, on validation answers; None: not asked
    disagreement: str | None  # of transformers and llama.cpp on the file that was measured on
    prompts: PromptCheck  # of the run against llama-server's on that file

    @property
    def warnings(self) -> list[str]:
        found = [*([] if self.disagreement is None else [self.disagreement]), *self.prompts.warnings]
        if self.comparison.unsteered is not None:
            found.append(self.comparison.unsteered)
        elif self.comparison.fidelity < GOOD_FIDELITY:
            fidelity = f"fidelity {self.comparison.fidelity:.2f} is below {GOOD_FIDELITY}"
            found.append(f"{fidelity}: static vectors carry only part of this IRM")
        return found


@giving_way()
def export_vector(
    run: TrainedRun,
    out: Path,
    *,
    method: Method = "auto",
    layers: str = "all",
    gguf: Path | None = None,
    allow_disagreement: bool = False,
    on_progress: Progress = unwatched,
    fitting: Fitting = Fitting(),  # noqa: B008  # it is frozen
) -> ExportResult:
    """Write `out` (.gguf); for the run's own vector export/fidelity.json too.

    `distil` fits vectors to the IRM, as long and in the order that `fitting` says; `mean` takes its mean output; `exact`
    copies a static IRM trained at site `block`; `auto` is exact where that can be, else the mean where that loses at most 3%,
    else distil. `layers` are the blocks that get a vector, from 1. The fidelity is measured in llama.cpp on `gguf` (default:
    the base's own file), or in transformers where there is none. Raises an InputError where something cannot be used, before
    any work: among it a `gguf` of which llama.cpp makes quite another model than transformers does of the base, unless that is
    allowed here or was in training.

    >>> from irm_lite import ControlVector, load_run
    >>> result = export_vector(load_run("runs/anger"), Path("anger.gguf"), method="mean")
    >>> result.comparison.fidelity <= 1.0
    True
    >>> ControlVector.load("anger.gguf").layers == result.vector.layers
    True
    """
    if out.suffix.lower() != ".gguf":
        raise InputError(f"{out} must end in .gguf", "llama.cpp loads no other")
    require_unlinked(out.parent)
    require_folder(out.parent)
    gguf = gguf or run.gguf_path
    runs_on = fingerprint_gguf(gguf) if gguf is not None else None
    if gguf is not None and runs_on is not None:  # before the work, not after it
        run.matches.append(run.match(runs_on, gguf.name))
    blocks = parse_layers(layers, run.fingerprint.n_layers, first=1)
    chosen = _method(run.irm, method, blocks)
    _require_stream(run)
    prompts = PromptCheck() if gguf is None else prompts_on(run, gguf)
    told = None if gguf is None else disagreement_on(run, gguf, allowed=allow_disagreement)
    made = _directions(run, chosen, blocks, fitting, on_progress)
    vector = _vector(made, run, fitting)
    comparison = measure(run, vector, gguf, run.held_out, on_progress)
    if not math.isnan(comparison.fidelity):
        quantisation = (runs_on or run.base.fingerprint).quantisation
        vector.metadata |= {"fidelity": comparison.fidelity, "fidelity.on": comparison.measured_on(quantisation)}
    vector.save(out)
    result = ExportResult(out, gguf, vector, made.method, comparison, made.dependent_share, made.mean_loses, told, prompts)
    if out.absolute() == run.directory.default_vector.absolute():  # the run's own figure; others carry theirs in the file
        keep_figures(run.directory, _report(result, gguf) | _kept_adapter(run))
    return result


@dataclass(frozen=True)
class _Made:
    """The vector of each block, (H,), how it was made, and the IRM's shares as in ExportResult."""

    directions: dict[int, Tensor]
    method: str
    dependent_share: DependentShare | None = None
    mean_loses: float | None = None


def _directions(run: TrainedRun, method: Method, blocks: tuple[int, ...], fitting: Fitting, on_progress: Progress) -> _Made:
    base, irm = run.base, run.irm
    if method == "exact":
        assert isinstance(irm, StaticIRM)
        return _Made({layer: added for layer, added in zip(irm.layers, irm.added, strict=True) if layer in blocks}, method)
    train, _ = encode_all(base.tokenizer, run.dataset.train, run.config.max_length)
    if method == "mean":
        observed = observe(base, irm, train, on_progress)
        mean = block_directions(observed.mean, irm, base.n_layers)
        return _Made({block: mean[block] for block in blocks}, method, observed.dependent_share)
    validation, _ = encode_all(base.tokenizer, run.dataset.validation, run.config.max_length)
    fitting = replace(fitting, enough=ENOUGH if method == "auto" else 0.0)
    found = distil(base, irm, train, validation, blocks, fitting, on_progress)
    return _Made(found.directions, "distil" if found.fitted else "mean", found.dependent_share, found.lost)


def _report(result: ExportResult, gguf: Path | None) -> dict[str, Any]:
    """What fidelity.json holds."""
    return {
        "vector": str(result.path),
        "method": result.method,
        "mean_loses": result.mean_loses,
        "gguf": str(gguf) if gguf else None,
        "disagreement": result.disagreement,
        "prompts": result.prompts.to_dict(),
        "input_dependent_share": asdict(result.dependent_share) if result.dependent_share else None,
        **result.comparison.to_dict(),
    }


def _kept_adapter(run: TrainedRun) -> dict[str, Any]:
    """Of fidelity.json what is of the adapter, where that is the IRM's and not the former vector's."""
    kept = kept_figures(run.directory) if run.irm.leaves_as == "adapter" else {}
    return {key: value for key, value in kept.items() if key == "adapter"}


def _require_stream(run: TrainedRun) -> None:
    """Raise InputError where what the IRM puts out is no vector in the stream."""
    known = stream_of(run.base.model).known if run.irm.reads == "maps" else None
    if known is not None and known.sandwiched:
        what = f"a {type(run.base.model).__name__} normalises what its last maps put out, a {run.irm.kind}'s addition with it"
        raise InputError(f"{what}: that is no vector in the stream", "say --as adapter")


def _method(irm: IRM, method: Method, blocks: tuple[int, ...]) -> Method:
    exact = isinstance(irm, StaticIRM) and irm.site == "block" and set(irm.layers) <= set(blocks)
    if method == "exact" and not exact:
        raise InputError(
            "this IRM cannot be copied exactly", "exact needs --irm static --site block and layers from 1; use --method distil"
        )
    return "exact" if exact and method == "auto" else method


def _vector(made: _Made, run: TrainedRun, fitting: Fitting) -> ControlVector:
    fingerprint, irm = run.base.fingerprint, run.irm
    fitted: dict[str, str | int | float] = {"epochs": fitting.epochs, "seed": fitting.seed} if made.method == "distil" else {}
    return ControlVector(
        {layer: direction.detach().float().cpu().numpy() for layer, direction in made.directions.items()},
        fingerprint.architecture,
        {
            "version": __version__,
            "method": made.method,
            **fitted,
            "data": public_name(run.config.data),  # the file is given away, this machine's folders are not
            "kind": irm.kind,
            "site": irm.site,
            "layers": format_layers(irm.layers),
            **base_keys(fingerprint),
        },
    )
