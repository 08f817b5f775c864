"""The main path: a run's vector, or any control vector, as a LoRA adapter: fitted, measured, written with its provenance."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from irm_lite.base.fingerprint import Match
from irm_lite.base.load import Base
from irm_lite.core.types import Progress, unwatched
from irm_lite.data.dataset import public_name
from irm_lite.data.encoding import Sample, encode_all
from irm_lite.llamacpp.likelihood import context_for
from irm_lite.steering.control_vector import ControlVector
from irm_lite.vectors.adapter.closed_form import ClosedForm, closed_form, parted, spread
from irm_lite.vectors.adapter.inputs import LlamaCppSource, Source, TransformersSource
from irm_lite.vectors.adapter.job import Job, job_in_transformers, job_on
from irm_lite.vectors.adapter.measuring import Beside, measured_in_llamacpp, measured_in_transformers
from irm_lite.vectors.adapter.texts import (
    NEW_TOKENS,
    QUESTIONS,
    answered_in_llamacpp,
    answered_in_transformers,
    questions,
    training_answers,
)
from irm_lite.vectors.adapter.written import AdapterExport, write
from irm_lite.vectors.kept_figures import keep_figures, kept_figures

if TYPE_CHECKING:
    from irm_lite.runs.trained import TrainedRun
    from irm_lite.scoring.score import Score


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
        job = job_in_transformers(run.base, vector, out, run.config.model)
    else:
        job = job_on(gguf, vector, out, run.config.model)
    match_of_run = run.match(job.fingerprint, job.base_name)
    if match_of_run != Match() and job.matches == [Match()]:  # made on one base, they say one thing
        job.matches[:] = [match_of_run]
    job.kept.update({"data": public_name(run.config.data), "kind": run.irm.kind, "site": run.irm.site})
    train, _ = encode_all(run.tokenizer, run.dataset.train, run.config.max_length)
    fitted_on = training_answers(train)
    beside = Beside(run.irm, vector, run.held_out)
    if gguf is None:
        made = _made(job, vector, TransformersSource(run.base, vector, job.names), fitted_on, on_progress)
        adapter = job.adapter(made)
        found = measured_in_transformers(run.base, adapter, job.names, beside, on_progress)
    else:
        from irm_lite.llamacpp.module_inputs import WatchedRuntime

        with WatchedRuntime(gguf, n_ctx=context_for(fitted_on)) as runtime:
            made = _made(job, vector, LlamaCppSource(runtime, vector), fitted_on, on_progress)
        adapter = job.adapter(made)
        found = measured_in_llamacpp(gguf, adapter, beside, on_progress)
    texts = f"{len(fitted_on)} training answers of the run"
    result = write(job, AdapterExport(out, gguf, adapter, made.fits, texts, found, began, job.matches))
    keep_with_run(run, result)
    return result


def keep_with_run(run: "TrainedRun", result: AdapterExport, score: "Score | None" = None) -> None:
    """In the run's fidelity.json, with the score of its text if there is one; not of an adapter that lies elsewhere."""
    if result.path.absolute().parent == run.directory.export.absolute():
        adapter = result.to_dict() | ({"score": score.to_dict()} if score else {})
        keep_figures(run.directory, {**kept_figures(run.directory), "adapter": adapter})


def adapter_of_vector(
    vector: ControlVector, out: Path, model: "Path | Base", *, name: str = "", on_progress: Progress = unwatched
) -> AdapterExport:
    """Any control vector as an adapter in `out`, fitted on the model's own answers to everyday questions, and compared with the
    vector on others. `model`: a .gguf for llama.cpp, or a base in transformers; `name`: where others find it."""
    began = time.monotonic()
    texts = f"the model's own answers to {len(questions(QUESTIONS))} everyday questions, {NEW_TOKENS} tokens each at most"
    if isinstance(model, Base):
        job = job_in_transformers(model, vector, out, name or model.name)
        samples = answered_in_transformers(model, vector, on_progress)
        made = _made(job, vector, TransformersSource(model, vector, job.names), samples, on_progress)
        adapter = job.adapter(made)
        beside = Beside(None, vector, parted(samples)[2])
        found = measured_in_transformers(model, adapter, job.names, beside, on_progress)
        return write(job, AdapterExport(out, None, adapter, made.fits, texts, found, began, job.matches))
    from irm_lite.llamacpp.module_inputs import WatchedRuntime
    from irm_lite.llamacpp.parallel import SEQUENCES

    job = job_on(model, vector, out, name or model.stem)
    with WatchedRuntime(model, n_ctx=4096, n_sequences=SEQUENCES) as runtime:
        samples = answered_in_llamacpp(runtime, vector, on_progress)
        made = _made(job, vector, LlamaCppSource(runtime, vector), samples, on_progress)
    adapter = job.adapter(made)
    found = measured_in_llamacpp(model, adapter, Beside(None, vector, parted(samples)[2]), on_progress)
    return write(job, AdapterExport(out, model, adapter, made.fits, texts, found, began, job.matches))


def _made(job: Job, vector: ControlVector, source: Source, samples: Sequence[Sample], on_progress: Progress) -> ClosedForm:
    directions = {block: direction / job.scale for block, direction in vector.directions.items()}
    texts = spread([(sample.ids, sample.answer_start) for sample in samples])
    return closed_form(source, directions, texts, help_with=job.help_with, norms=job.norms, on_progress=on_progress)
