"""The set-up of a training, step by step: all that it needs is loaded, decided and checked before anything is written."""

import irm_lite.core.machine.bitsandbytes_first  # noqa: F401  # isort: skip
import hashlib
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from transformers import TrainingArguments, set_seed

from irm_lite.base.architecture import text_config
from irm_lite.base.forward import can_share
from irm_lite.base.load import Base
from irm_lite.base.maps import last_maps, width_read
from irm_lite.base.sources.experts import told_of_experts
from irm_lite.base.sources.shape import shape_of_config
from irm_lite.base.stream import require_site, stream_of
from irm_lite.base.stream_size import stream_sizes
from irm_lite.config import KINDS, TrainConfig
from irm_lite.core.errors import BaseModelError, DataError, InputError, MissingPart
from irm_lite.core.machine import processes
from irm_lite.core.machine.device import decide, probe
from irm_lite.core.machine.memory import free_bytes, peak_bytes, reset_peak
from irm_lite.core.machine.ran_out import told_as_ran_out
from irm_lite.data.dataset import Dataset, Reading, load_dataset
from irm_lite.data.encoding import Sample, encode, encode_all
from irm_lite.data.packing import shared_prefix
from irm_lite.runs.directory import RunDirectory
from irm_lite.runs.trained import base_at, load_base_of
from irm_lite.scoring.material import neutral_answers
from irm_lite.steering.irm import IRM, build_irm
from irm_lite.steering.layers import injected_layers
from irm_lite.training.kept_share import keep_share
from irm_lite.training.memory_fit import Fit, Room, fewest_rows, largest_step, predict, with_text
from irm_lite.training.setup.disk_space import require_disk_space
from irm_lite.training.setup.fact_weights import with_fact_weights
from irm_lite.training.setup.own_share import measured_share
from irm_lite.training.setup.runtimes import runs_in_llamacpp, told_of_runtimes
from irm_lite.training.setup.settings import resolved, training_arguments


@dataclass(frozen=True)
class Samples:
    """A dataset's samples as tokens. `too_long` (by split) and `unanswered` are counts of those left out, `read` of all."""

    train: list[Sample]
    validation: list[Sample]
    too_long: dict[str, int]
    unanswered: int
    reading: Reading
    read: dict[str, int]

    def left_out(self, config: TrainConfig) -> Iterator[str]:
        """A line for each reason for which samples are left out, with how many."""
        counts = ", ".join(f"{count} of {self.read[split]} in {split}" for split, count in self.too_long.items() if count)
        if counts:
            yield f"{sum(self.too_long.values())} samples are longer than {config.max_length} tokens and left out ({counts})"
        if self.unanswered:
            yield f"{self.unanswered} questions of {config.data} have no answer and are skipped"

    def described(self) -> dict[str, Any]:
        """How the data was read, for the start event."""
        return {**self.reading.to_dict(), "as": str(self.reading), "samples": self.read, "too_long": self.too_long}

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the tokens, in their order, and of how much each counts."""
        hashed = hashlib.sha256()
        for samples in (self.train, self.validation):
            for sample in samples:
                hashed.update(np.array([len(sample.ids), sample.answer_start, *sample.ids], dtype="<i8").tobytes())
                hashed.update(np.array(sample.weights, dtype="<f8").tobytes())
        return hashed.hexdigest()


@dataclass(frozen=True)
class MemoryPlan:
    """How a training uses the `free` bytes of its device: each step goes through in `rows` rows. `predicted`: its peaks then,
    None where they cannot be predicted."""

    free: int
    rows: int
    predicted: Fit | None


@dataclass(frozen=True)
class Job:
    """A training that can begin: all that it needs, checked."""

    run: RunDirectory
    config: TrainConfig  # resolved: nothing is left at `auto` or 0
    base: Base
    load_peak: int | None  # bytes that loading the base took; None where it was loaded before
    samples: Samples
    irm: IRM
    arguments: TrainingArguments
    disk_growth: int  # bytes by which the run directory will grow at the most
    memory: MemoryPlan
    told: tuple[str, ...]  # warnings: of how transformers and llama.cpp read the base


def prepare(
    config: TrainConfig,
    run: RunDirectory,
    base: Base | None,
    at: datetime | None,
    *,
    rows: int | None = None,
    resumed: bool = False,
) -> Job:
    """Make a training ready. `base`: the one that `config` names, where it is loaded already. `at`: the local time that its chat
    template sees. `rows`: what each step of a resumed training went through in. Writes nothing; raises InputError kinds, and
    RanOut where memory does."""
    allowed = config.allow_disagreement or resumed  # what has begun may go on
    _require_tensorboard(config)
    dataset = load_dataset(config.data, config.answer_column, config.download)
    told = runs_in_llamacpp(config, base, allowed=allowed)
    base, load_peak = (base, None) if base else _load(config)
    base = base_at(base, at)
    config = _at_a_site(config, base)
    layers = injected_layers(config.layers, config.chosen_site, base.n_layers)
    samples = _encode(dataset, base, config.max_length)
    samples = replace(samples, train=_weighted(config, dataset, base, samples.train))
    told = told or told_of_runtimes(base, samples.train, samples.validation, allowed=allowed)
    told = [*told, *filter(None, [told_of_experts(base.model, base.plan.quant)])]
    config = resolved(config, base, layers, len(samples.train))
    irm = _new_irm(config, base, layers, samples.train)
    arguments = training_arguments(config, run.path, len(samples.train))
    disk_growth = require_disk_space(config, run, irm, arguments.max_steps)
    own = measured_share(base.model, irm) if base.plan.device == "cpu" else 0
    if own and load_peak is not None:  # nothing of the user's is in this process
        keep_share(own)
    memory = _plan_memory(config, base, samples, arguments.max_steps, rows, own)
    return Job(run, config, base, load_peak, samples, irm, arguments, disk_growth, memory, tuple(told))


def _require_tensorboard(config: TrainConfig) -> None:
    if config.report_to == "tensorboard" and importlib.util.find_spec("tensorboard") is None:
        raise MissingPart("--report-to tensorboard needs the tensorboard package", "pip install 'irm-lite[tensorboard]'")


def _at_a_site(config: TrainConfig, base: Base) -> TrainConfig:
    """A site left open is `block` where the base has none before the MLP. Raises BaseModelError where that was asked for."""
    if config.site == "auto" and not stream_of(base.model).attn:
        return replace(config, site="block")
    require_site(base.model, config.chosen_site)
    return config


def _load(config: TrainConfig) -> tuple[Base, int]:
    """The base, and the bytes that loading it took at the peak."""
    device = decide(probe(), config.device, config.dtype, config.quant).device
    reset_peak(device)
    with told_as_ran_out("take a smaller --model, or quantise it by --quant nf4"):
        base = load_base_of(config)
    return base, peak_bytes(device)


def _encode(dataset: Dataset, base: Base, max_length: int) -> Samples:
    parts = {"train": dataset.train, "validation": dataset.validation, "test": dataset.test}
    encoded = {split: encode_all(base.tokenizer, examples, max_length) for split, examples in parts.items()}
    for split in ("train", "validation"):
        if not encoded[split][0]:
            shortest = min(len(encode(base.tokenizer, each).ids) for each in parts[split])
            what = f"none of the {len(parts[split])} {split} samples fits into {max_length} tokens, the shortest has {shortest}"
            raise DataError(f"{dataset.name}: {what}", "raise --max-length, or shorten the texts")
    too_long = {split: count for split, (_, count) in encoded.items()}
    read = {split: len(examples) for split, examples in parts.items()}
    return Samples(encoded["train"][0], encoded["validation"][0], too_long, dataset.unanswered, dataset.reading, read)


def _weighted(config: TrainConfig, dataset: Dataset, base: Base, train: list[Sample]) -> list[Sample]:
    """The training samples with the weights of their tokens."""
    plain = neutral_answers(config.data, dataset, config.answer_column) if config.chosen_fact_weight != 1 else {}
    decode = partial(base.tokenizer.decode, skip_special_tokens=True)
    return with_fact_weights(train, plain, decode, config.chosen_fact_weight) if plain else train


def _new_irm(config: TrainConfig, base: Base, layers: tuple[int, ...], samples: list[Sample]) -> IRM:
    """Seeds every random generator, so that the IRM and the order of the samples depend on --seed alone."""
    options = config.irm_options
    if KINDS[config.irm].scaled:
        with told_as_ran_out("take a smaller --model, or a lower --max-length"):
            sizes = stream_sizes(base, samples)
        options["scale"] = [sizes[layer] for layer in layers]
    set_seed(config.seed)
    if KINDS[config.irm].reads == "h0":
        options["h0"] = stream_of(base.model).h0
    if KINDS[config.irm].reads == "maps":
        options["inner"] = width_read(last_maps(base.model, layers))
    irm = build_irm(config.irm, base.hidden_size, layers, config.chosen_site, **options)
    return irm.to(base.plan.device, getattr(torch, config.irm_dtype))


def _plan_memory(config: TrainConfig, base: Base, samples: Samples, steps: int, rows: int | None, own: int) -> MemoryPlan:
    """As few rows a step as fit into memory where `--batch auto` leaves that open; a resumed training keeps its `rows`."""
    plan = base.plan
    free = free_bytes(plan.device) // (processes.on_this_machine() if plan.device == "cpu" else 1)
    unplanned = MemoryPlan(free, rows or config.gradient_accumulation_steps, None)
    if config.device_map == "auto":  # what each of several GPUs will hold is not known
        return unplanned
    try:
        shape = shape_of_config(text_config(base.model).to_dict(), base.name, base.gguf_path is not None)
    except BaseModelError:
        return unplanned
    train, validation = ([len(sample.ids) for sample in some] for some in (samples.train, samples.validation))

    shared = shared_prefix(samples.train) if can_share(base.model, max(train, default=0)) else 0
    prompts = [sample.answer_start for sample in (*samples.train, *samples.validation) if sample.example.messages]

    def predicted(rows: int) -> Fit:
        step = largest_step(train, validation, config, steps, rows, processes.count(), shared)
        step = with_text(step, config, max(prompts)) if prompts else step
        return predict(shape, config, step, plan.device, plan.dtype, config.optim, Room(free, own))

    try:
        chosen = unplanned.rows
        if config.batch == "auto" and rows is None:
            chosen = fewest_rows(predicted, config.batch_size * chosen, free)
        return MemoryPlan(free, chosen, predicted(chosen))
    except InputError:  # the optimiser's memory is not known
        return unplanned
