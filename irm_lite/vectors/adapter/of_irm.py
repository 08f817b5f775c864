"""The main path of further ranks: an IRM itself as a LoRA adapter, input-dependent part and all, at its own site.

Each layer's map (the last one of site `block`, attention's of site `attn`) gets the best low-rank map from what it reads to what
the IRM adds there (regression.py), and all of them together are then fitted on by KL (tuning.py).
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from irm_lite.base.load import Base
from irm_lite.base.maps import ATTENTION, LAST
from irm_lite.core.errors import InputError
from irm_lite.core.types import FloatArray, Progress, unwatched
from irm_lite.data.encoding import Sample, encode_all
from irm_lite.steering.adapter import Factors
from irm_lite.steering.control_vector import ControlVector
from irm_lite.steering.irm import IRM
from irm_lite.vectors.adapter.closed_form import BlockFit, ClosedForm, at_once, split_of, spread, told
from irm_lite.vectors.adapter.fitting_base import fitting_base
from irm_lite.vectors.adapter.inputs import Text, TransformersSource
from irm_lite.vectors.adapter.job import job_of_irm, require_out
from irm_lite.vectors.adapter.make import keep_with_run
from irm_lite.vectors.adapter.measuring import Beside, measured_in_llamacpp, measured_in_transformers
from irm_lite.vectors.adapter.regression import Regression, regress
from irm_lite.vectors.adapter.texts import training_answers
from irm_lite.vectors.adapter.tuning import RANKS, tune
from irm_lite.vectors.adapter.written import AdapterExport, write
from irm_lite.vectors.distil import MAX_SAMPLES, Fitting
from irm_lite.vectors.mean import observe
from irm_lite.vectors.teaching import Lessons, lesson_rows

if TYPE_CHECKING:
    from irm_lite.runs.trained import TrainedRun

DIRECTIONS = 128  # of a map's inputs, along which A is moved


@dataclass(frozen=True)
class Ranks:
    """How many ranks the adapter gets (None: as many as gain something), and how long they are fitted."""

    rank: int | None = None
    fitting: Fitting = Fitting()  # noqa: RUF009  # it is frozen


def adapter_of_irm(
    run: "TrainedRun",
    out: Path,
    ranks: Ranks,
    *,
    vector: ControlVector | None = None,
    gguf: Path | None = None,
    on_progress: Progress = unwatched,
) -> AdapterExport:
    """A run's IRM as an adapter in `out`, fitted in transformers on the weights that fitting_base.py chooses.

    It is compared with the IRM, and with `vector` if there is one, on held-out answers: in llama.cpp on `gguf` (default: the
    base's own), else in transformers.

    Raises InputError where the model cannot carry it, or has no such rank, before any work.
    """
    began = time.monotonic()
    gguf = gguf or run.gguf_path
    require_out(out)
    _require_rank(ranks.rank, run.fingerprint.hidden_size)
    fitted = fitting_base(run, gguf)
    base, irm = fitted.base, run.irm
    job = job_of_irm(run, base, out, gguf)
    module = ATTENTION if irm.site == "attn" else LAST
    train, _ = encode_all(run.tokenizer, run.dataset.train, run.config.max_length)
    validation, _ = encode_all(run.tokenizer, run.dataset.validation, run.config.max_length)
    fitted_on = training_answers(train)
    texts = spread([(sample.ids, sample.answer_start) for sample in fitted_on])
    starts = Starts(TransformersSource(base, irm, job.names), irm, module, job.scale)
    regressions = starts.found(texts, ranks.rank or min(RANKS[-1], base.hidden_size), on_progress)
    lessons = _lessons(base, irm, train[:MAX_SAMPLES], validation, on_progress)
    tuned = tune(lessons, regressions, job.names, ranks.rank, ranks.fitting, on_progress)
    fits = starts.told(texts, tuned.factors, regressions, on_progress)
    rank = next(iter(tuned.factors.values())).rank
    adapter = job.adapter(ClosedForm(tuned.factors, fits), f"regression and KL, rank {rank}")
    beside = Beside(irm, vector, run.held_out)
    if gguf is None:
        found = measured_in_transformers(base, adapter, job.names, beside, on_progress)
    else:
        found = measured_in_llamacpp(gguf, adapter, beside, on_progress)
    told_of = f"{len(fitted_on)} training answers of the run, and by KL on {len(lessons.samples)}, on {fitted.told}"
    result = write(job, AdapterExport(out, gguf, adapter, fits, told_of, found, began, job.matches, tuned=tuned))
    keep_with_run(run, result)
    return result


def _require_rank(rank: int | None, most: int) -> None:
    if rank is not None and not 1 <= rank <= most:
        raise InputError(f"--rank {rank} is beyond what the model has", f"give 1 to {most}, or auto")


def _lessons(base: Base, irm: IRM, train: list[Sample], validation: list[Sample], on_progress: Progress) -> Lessons:
    taught = observe(base, irm, train, on_progress)
    held_out = lesson_rows(base, validation, observe(base, irm, validation).hidden)
    return Lessons(base, train, taught.hidden, held_out)


@dataclass(frozen=True)
class Starts:
    """What a layer's map reads under the IRM, and what the IRM adds there: the regression of one on the other."""

    source: TransformersSource
    irm: IRM
    module: str
    scale: float  # of what a block adds

    def found(self, texts: Sequence[Text], rank: int, on_progress: Progress) -> dict[str, Regression]:
        """By map; layers at which the IRM adds nothing are left out."""
        split, found = split_of(texts), {}
        layers = self.irm.layers
        for group in self._groups(split.all):
            for layer, (inputs, outputs) in self._read(group, split.all).items():
                parts = tuple(zip(split.parts(inputs), split.parts(outputs), strict=True))
                if np.any(outputs):
                    most = min(rank, *parts[0][0].shape, outputs.shape[1])  # no more than tokens, either
                    found[f"blk.{layer}.{self.module}"] = regress(parts[0], parts[1], most, DIRECTIONS)
                on_progress(layers.index(layer) + 1, len(layers), "predicting what the IRM adds")
        if not found:
            raise InputError("the IRM adds nothing anywhere", "train it longer, or at a higher --learning-rate")
        return found

    def told(
        self, texts: Sequence[Text], factors: Mapping[str, Factors], ridges: Mapping[str, Regression], on_progress: Progress
    ) -> list[BlockFit]:
        """E|y - B A x|^2 / E|y|^2 by block, on the texts that nothing was fitted to."""
        held_out, fits = split_of(texts).tell, []
        for group in self._groups(held_out):
            for layer, (inputs, outputs) in self._read(group, held_out).items():
                name = f"blk.{layer}.{self.module}"
                if name not in factors:
                    continue
                said = inputs @ factors[name].a.T @ factors[name].b.T
                power = np.maximum(np.square(outputs).sum(1), np.finfo(np.float32).tiny)
                errors = np.square(outputs - said).sum(1) / power.mean()
                fits.append(told(layer, (self.module,), ridges[name].ridge, errors, (said * outputs).sum(1) / power, held_out))
                on_progress(len(fits), len(factors), "telling the errors")
        return fits

    def _groups(self, texts: Sequence[Text]) -> Iterator[Sequence[int]]:
        """As many layers as are read at once; one text tells the widths."""
        layers = self.irm.layers
        inputs, outputs = self._read(layers[:1], texts[:1])[layers[0]]
        return at_once(layers, inputs.shape[1] + outputs.shape[1], texts)

    def _read(self, layers: Sequence[int], texts: Sequence[Text]) -> dict[int, tuple[FloatArray, FloatArray]]:
        """By layer: (T, n_in) and (T, H), the texts' tokens one after another."""
        seen: dict[int, list[FloatArray]] = {layer: [] for layer in layers}

        def observe_output(layer: int, vector: torch.Tensor) -> None:
            if layer in seen:
                seen[layer].append((vector[0].float().cpu() / self.scale).numpy())

        read = self.source.read([f"blk.{layer}.{self.module}" for layer in layers], texts, [observe_output])
        return {layer: (read[f"blk.{layer}.{self.module}"], np.concatenate(rows)) for layer, rows in seen.items()}
