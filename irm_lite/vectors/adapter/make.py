"""The main path: a run's vector, or any control vector, as a LoRA adapter: fitted, measured, written with its provenance."""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from irm_lite.base.fingerprint import Fingerprint, Match, fingerprint_gguf
from irm_lite.base.load import Base
from irm_lite.core.errors import InputError
from irm_lite.core.files.atomic import atomic_folder, require_folder, write_text
from irm_lite.core.files.gguf_header import read_header
from irm_lite.core.files.reading import read_json
from irm_lite.core.types import Progress, unwatched
from irm_lite.core.version import __version__
from irm_lite.data.encoding import Sample, encode_all
from irm_lite.llamacpp.likelihood import context_for
from irm_lite.steering.adapter import Adapter
from irm_lite.steering.control_vector import ControlVector
from irm_lite.steering.steering_file import base_keys
from irm_lite.vectors.adapter.card import card
from irm_lite.vectors.adapter.closed_form import ATTENTION, BlockFit, ClosedForm, closed_form, spread
from irm_lite.vectors.adapter.inputs import LlamaCppSource, Source, TransformersSource
from irm_lite.vectors.adapter.measured import LlamaCppWays, TransformersWays, Way, at_strengths, compare_ways, peft_at_work
from irm_lite.vectors.adapter.peft_folder import write_peft
from irm_lite.vectors.adapter.place import help_of, module_names, residual_scale, residual_scale_of
from irm_lite.vectors.adapter.texts import (
    NEW_TOKENS,
    QUESTIONS,
    answered_in_llamacpp,
    answered_in_transformers,
    questions,
    training_answers,
)
from irm_lite.vectors.fidelity.comparison import GOOD_FIDELITY, Comparison

if TYPE_CHECKING:
    from irm_lite.runs.trained import TrainedRun

FOLDER_GGUF = "adapter.gguf"  # beside PEFT's files in a folder: one folder for every program
_AT_STRENGTHS = 8  # samples
_LARGEST = 1 << 22  # bytes of fidelity.json


@dataclass(frozen=True)
class AdapterExport:
    """A written adapter, how well 1 is predicted in it, and what it does of what it is to do."""

    path: Path
    gguf: Path | None  # that it was made and measured on; None: in transformers
    adapter: Adapter
    fits: list[BlockFit]
    texts: str  # what it was fitted on
    teacher: Way  # what the comparisons are of: the run's IRM, or the vector
    compared: dict[Way, Comparison]
    strengths: dict[float, float]  # 1 - KL(vector || adapter) / KL(vector || base) at other strengths
    seconds: float
    n_bytes: int  # of the adapter's own file
    matches: list[Match] = field(default_factory=list)  # of the vector and the run in that model

    @property
    def comparison(self) -> Comparison:
        return self.compared["adapter"]

    @property
    def warnings(self) -> list[str]:
        found = [*filter(None, [self.comparison.unsteered])]
        if self.comparison.unsteered is None and self.comparison.fidelity < GOOD_FIDELITY:
            found.append(f"fidelity {self.comparison.fidelity:.2f} is below {GOOD_FIDELITY}: use the vector where that can be")
        return found

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "adapter": str(self.path),
            "gguf": str(self.gguf) if self.gguf else None,
            "texts": self.texts,
            "teacher": self.teacher,
            "seconds": round(self.seconds, 1),
            "bytes": self.n_bytes,
            "fidelity": self.comparison.to_dict()["fidelity"],
            **{name: each.to_dict() for name, each in self.compared.items() if name == "vector"},
            "measured": self.comparison.to_dict(),
            "strengths": {f"{strength:g}": value for strength, value in self.strengths.items()},
            "predicted": [fit.to_dict() for fit in self.fits],
        }


@dataclass(frozen=True)
class _Job:
    """What is made an adapter of, on which model, and to where."""

    vector: ControlVector
    out: Path
    fingerprint: Fingerprint
    names: Mapping[str, str]  # PEFT's, by GGUF's; empty: none are known, and a .gguf is written
    base_name: str
    scale: float  # of the residual stream
    help_with: str | None
    kept: dict[str, str | int | float]  # keys
    matches: list[Match]

    def adapter(self, source: Source, samples: Sequence[Sample], on_progress: Progress) -> tuple[Adapter, ClosedForm]:
        directions = {block: direction / self.scale for block, direction in self.vector.directions.items()}
        texts = spread([(sample.ids, sample.answer_start) for sample in samples])
        made = closed_form(source, directions, texts, help_with=self.help_with, on_progress=on_progress)
        fingerprint = self.fingerprint
        keys: dict[str, str | int | float] = {
            **{key: value for key, value in self.kept.items() if not key.startswith(("base.", "fidelity"))},
            "version": __version__,
            "method": "closed form",
            **base_keys(fingerprint),
            "error": sum(fit.error for fit in made.fits) / len(made.fits),
            "error.worst": max(fit.error for fit in made.fits),
        }
        return Adapter(made.factors, fingerprint.architecture, 1.0, keys), made


def adapter_of_run(
    run: "TrainedRun", vector: ControlVector, out: Path, *, gguf: Path | None = None, on_progress: Progress = unwatched
) -> AdapterExport:
    """A run's vector as an adapter in `out` (a .gguf, or a folder of PEFT's), fitted on the run's training answers and compared
    with its IRM on held-out ones: in llama.cpp on `gguf` (default: the base's own), else in transformers.

    Raises InputError where the model cannot carry a vector in an adapter, before any work.
    """
    began = time.monotonic()
    gguf = gguf or run.gguf_path
    if gguf is None:
        job = _job_in_transformers(run.base, vector, out, run.base.preset.hub_id if run.base.preset else run.config.model)
    else:
        job = _job_on(gguf, vector, out, run.config.model)
    match_of_run = run.match(job.fingerprint, job.base_name)
    if match_of_run != Match() and job.matches == [Match()]:  # made on one base, they say one thing
        job.matches[:] = [match_of_run]
    job.kept.update({"data": run.config.data, "kind": run.irm.kind, "site": run.irm.site})
    train, _ = encode_all(run.tokenizer, run.dataset.train, run.config.max_length)
    fitted_on, held_out = training_answers(train), run.held_out
    texts = f"{len(fitted_on)} training answers of the run"
    if gguf is None:
        source = TransformersSource(run.base, vector, job.names)
        adapter, made = job.adapter(source, fitted_on, on_progress)
        found = _measured_in_transformers(run.base, run, job, adapter, held_out, on_progress)
    else:
        from irm_lite.llamacpp.module_inputs import WatchedRuntime

        with WatchedRuntime(gguf, n_ctx=context_for(fitted_on)) as runtime:
            adapter, made = job.adapter(LlamaCppSource(runtime, vector), fitted_on, on_progress)
        found = _measured_in_llamacpp(gguf, run, job, adapter, held_out, on_progress)
    result = _written(job, gguf, adapter, made, found, texts, began)
    if out.absolute().parent == run.directory.default_vector.absolute().parent and run.directory.fidelity.exists():
        document = read_json(run.directory.fidelity, _LARGEST)
        write_text(run.directory.fidelity, json.dumps({**document, "adapter": result.to_dict()}, indent=2) + "\n")
    return result


def adapter_of_vector(
    vector: ControlVector, out: Path, model: "Path | Base", *, name: str = "", on_progress: Progress = unwatched
) -> AdapterExport:
    """Any control vector as an adapter in `out`, fitted on the model's own answers to everyday questions, and compared with the
    vector on others. `model`: a .gguf for llama.cpp, or a base in transformers; `name`: where others find it."""
    began = time.monotonic()
    texts = f"the model's own answers to {len(questions(QUESTIONS))} everyday questions, {NEW_TOKENS} tokens each at most"
    if isinstance(model, Base):
        job = _job_in_transformers(model, vector, out, name or model.name)
        samples = answered_in_transformers(model, vector, on_progress)
        adapter, made = job.adapter(TransformersSource(model, vector, job.names), samples, on_progress)
        found = _measured_in_transformers(model, None, job, adapter, _last_quarter(samples), on_progress)
        return _written(job, None, adapter, made, found, texts, began)
    from irm_lite.llamacpp.module_inputs import WatchedRuntime
    from irm_lite.llamacpp.parallel import SEQUENCES

    job = _job_on(model, vector, out, name or model.stem)
    with WatchedRuntime(model, n_ctx=4096, n_sequences=SEQUENCES) as runtime:
        samples = answered_in_llamacpp(runtime, vector, on_progress)
        adapter, made = job.adapter(LlamaCppSource(runtime, vector), samples, on_progress)
    found = _measured_in_llamacpp(model, None, job, adapter, _last_quarter(samples), on_progress)
    return _written(job, model, adapter, made, found, texts, began)


def _last_quarter(samples: list[Sample]) -> list[Sample]:
    """Those that the closed form tells its error on (closed_form.py): nothing was fitted to them."""
    return samples[-2 * max(1, len(samples) // 8) :]


def is_gguf(out: Path) -> bool:
    return out.suffix.lower() == ".gguf"


def _require_out(out: Path) -> None:
    if out.suffix and not is_gguf(out):
        raise InputError(f"{out} is neither a .gguf nor a folder", "name a file that ends in .gguf, or a folder for PEFT")
    require_folder(out.parent)


def _job_on(gguf: Path, vector: ControlVector, out: Path, name: str) -> _Job:
    """Checked before any work."""
    from irm_lite.base.presets import presets
    from irm_lite.base.sources.gguf_weights import skeleton

    _require_out(out)
    header = read_header(gguf)
    fingerprint = fingerprint_gguf(header)
    match = vector.require_fit(fingerprint, gguf.name)
    scale = residual_scale(header, vector.layers)
    names = {} if is_gguf(out) else module_names(skeleton(gguf), fingerprint.architecture)
    base_name = presets()[name].hub_id if name in presets() else name
    return _Job(vector, out, fingerprint, names, base_name, scale, help_of(header), dict(vector.metadata), [match])


def _job_in_transformers(base: Base, vector: ControlVector, out: Path, name: str) -> _Job:
    _require_out(out)
    match = vector.require_fit(base.fingerprint, base.name)
    names = module_names(base.model, base.fingerprint.architecture)
    helps = ATTENTION if f"blk.0.{ATTENTION}" in names else None
    scale = residual_scale_of(base.model, names, vector.layers)
    return _Job(vector, out, base.fingerprint, names, name, scale, helps, dict(vector.metadata), [match])


Measured = tuple[Way, dict[Way, Comparison], dict[float, float]]


def _measured_in_llamacpp(
    gguf: Path, run: "TrainedRun | None", job: _Job, adapter: Adapter, samples: Sequence[Sample], on_progress: Progress
) -> Measured:
    from irm_lite.llamacpp import Runtime
    from irm_lite.llamacpp.adapters import LoadedAdapter

    irm = run.irm if run else None
    with ExitStack() as stack:
        path = stack.enter_context(_in_a_file(adapter))
        runtime = stack.enter_context(Runtime(gguf, irm=irm, n_ctx=context_for(samples)))
        loaded = stack.enter_context(LoadedAdapter(runtime.model, path))
        found = _measured(LlamaCppWays(runtime, job.vector, [(loaded, 1.0)]), run, samples, on_progress)
        runtime.set_adapters([])  # before the adapter is freed
        return found


def _measured_in_transformers(
    base: Base, run: "TrainedRun | None", job: _Job, adapter: Adapter, samples: Sequence[Sample], on_progress: Progress
) -> Measured:
    with TemporaryDirectory() as folder:
        write_peft(Path(folder), adapter, job.names, job.base_name)
        with peft_at_work(base, Path(folder)) as peft:
            return _measured(TransformersWays(base, run.irm if run else None, job.vector, peft), run, samples, on_progress)


def _measured(ways: Any, run: "TrainedRun | None", samples: Sequence[Sample], on_progress: Progress) -> Measured:
    teacher: Way = "irm" if run else "vector"
    compared = compare_ways(ways, teacher, samples, on_progress)
    return teacher, compared, at_strengths(ways, samples[:_AT_STRENGTHS], on_progress)


@contextmanager
def _in_a_file(adapter: Adapter) -> Iterator[Path]:
    with TemporaryDirectory() as folder:
        adapter.save(Path(folder) / FOLDER_GGUF)
        yield Path(folder) / FOLDER_GGUF


def _written(
    job: _Job, gguf: Path | None, adapter: Adapter, made: ClosedForm, found: Measured, texts: str, began: float
) -> AdapterExport:
    teacher, compared, strengths = found
    comparison = compared["adapter"]
    if comparison.fidelity == comparison.fidelity:
        on = fingerprint_gguf(gguf).quantisation if gguf else job.fingerprint.quantisation
        adapter.metadata |= {
            "fidelity": comparison.fidelity,
            "fidelity.of": "IRM" if teacher == "irm" else "vector",
            "fidelity.on": f"{comparison.measured_in}, {on}",
        }

    def result(n_bytes: int) -> AdapterExport:
        seconds = time.monotonic() - began
        return AdapterExport(job.out, gguf, adapter, made.fits, texts, teacher, compared, strengths, seconds, n_bytes, job.matches)

    if is_gguf(job.out):
        adapter.save(job.out)
        return result(job.out.stat().st_size)
    with atomic_folder(job.out) as folder:
        write_peft(folder, adapter, job.names, job.base_name)
        adapter.save(folder / FOLDER_GGUF)
        written = result((folder / "adapter_model.safetensors").stat().st_size)
        (folder / "README.md").write_text(card(written, job.base_name), encoding="utf-8")
        (folder / "fidelity.json").write_text(json.dumps(written.to_dict(), indent=2) + "\n", encoding="utf-8")
    return written
