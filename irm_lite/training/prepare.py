"""All that a training needs, made ready and checked before anything is written."""

import irm_lite.core.machine.bitsandbytes_first  # noqa: F401  # isort: skip
import dataclasses
import hashlib
import importlib.metadata
import importlib.util
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import TrainingArguments, set_seed

from irm_lite.base.load import Base
from irm_lite.base.presets import presets
from irm_lite.base.sources.shape import shape_of_config
from irm_lite.config import TrainConfig
from irm_lite.core.errors import BaseModelError, DataError, InputError, MissingPart, RunError
from irm_lite.core.files.atomic import free_space
from irm_lite.core.files.paths import expanded
from irm_lite.core.machine import processes
from irm_lite.core.machine.device import decide, probe
from irm_lite.core.machine.memory import peak_bytes, reset_peak
from irm_lite.core.machine.out_of_memory import shortage_named
from irm_lite.data.dataset import load_dataset, tones
from irm_lite.data.encoding import Sample, encode_all
from irm_lite.runs.directory import RunDirectory
from irm_lite.runs.trained import load_base_of
from irm_lite.steering.irm import IRM, build_irm
from irm_lite.steering.layers import format_layers, injected_layers
from irm_lite.training.memory_fit import Fit, fewest_rows, largest_step, optimiser_bytes, predict

_REST_BYTES = 32_000_000  # the live snapshot, short files, what file systems round up
_STEP_BYTES = 1000  # of a step in events.jsonl


@dataclass
class Job:
    """All that a training needs, checked before anything is written."""

    run: RunDirectory
    config: TrainConfig  # resolved: nothing is left at `auto` or 0
    base: Base
    irm: IRM
    train: list[Sample]
    validation: list[Sample]
    too_long: int
    unanswered: int
    arguments: TrainingArguments
    load_peak: int | None  # bytes; None where the base was loaded before
    space: int  # bytes that the run directory will yet take

    @cached_property
    def data_digest(self) -> str:
        """SHA-256 of the samples as tokens, in their order."""
        hashed = hashlib.sha256()
        for samples in (self.train, self.validation):
            for sample in samples:
                hashed.update(np.array([len(sample.ids), sample.answer_start, *sample.ids], dtype="<i8").tobytes())
        return hashed.hexdigest()


def prepare(config: TrainConfig, run: RunDirectory, base: Base | None) -> Job:
    if config.report_to == "tensorboard" and importlib.util.find_spec("tensorboard") is None:
        raise MissingPart("--report-to tensorboard needs the tensorboard package", "pip install 'irm-lite[tensorboard]'")
    dataset = load_dataset(config.data, config.answer_column, config.download)
    load_peak = None
    if base is None:
        device = decide(probe(), config.device, config.dtype, config.quant).device
        reset_peak(device)
        with shortage_named("take a smaller --model, or quantise it by --quant nf4"):
            base = load_base_of(config)
        load_peak = peak_bytes(device)
    layers = injected_layers(config.layers, config.chosen_site, base.n_layers)
    train_samples, long_train = encode_all(base.tokenizer, dataset.train, config.max_length)
    validation, long_validation = encode_all(base.tokenizer, dataset.validation, config.max_length)
    _, long_test = encode_all(base.tokenizer, dataset.test, config.max_length)
    if not train_samples or not validation:
        raise DataError(f"{dataset.name}: no sample fits into {config.max_length} tokens", "raise --max-length")
    resolved = _resolve(config, base, len(train_samples))
    set_seed(resolved.seed)
    irm = build_irm(resolved.irm, base.hidden_size, layers, resolved.chosen_site, **resolved.irm_options)
    irm = irm.to(base.plan.device, getattr(torch, resolved.irm_dtype))
    arguments = _arguments(resolved, run, len(train_samples))
    space = _require_space(resolved, run, irm, arguments.max_steps)
    too_long = long_train + long_validation + long_test
    return Job(run, resolved, base, irm, train_samples, validation, too_long, dataset.unanswered, arguments, load_peak, space)


def _require_space(config: TrainConfig, run: RunDirectory, irm: IRM, steps: int) -> int:
    """Bytes that a training will take on the disk beside what it has there: the checkpoints that are kept and one that is being
    written, each with the best IRM beside its own, the run's IRM, the next one, and the rest. Raises RunError where so much is
    not free."""
    weights = sum(parameter.nbytes for parameter in irm.parameters())
    count, each = sum(parameter.numel() for parameter in irm.parameters()), next(irm.parameters()).element_size()
    checkpoint = 2 * weights + optimiser_bytes(count, each, config.optim)
    needed = (
        (config.save_total_limit + 1) * checkpoint + 2 * weights + _STEP_BYTES * steps + _REST_BYTES - run.size_of_checkpoints()
    )
    free = free_space(run.path)
    if needed > free:
        raise RunError(
            f"{run.path} needs {needed / 1e9:.2f} GB of disk, {checkpoint / 1e9:.2f} a checkpoint, and {free / 1e9:.2f} are free",
            "make space, or choose another place or a smaller --save-total-limit",
        )
    return max(needed, 0)


def absolute(config: TrainConfig) -> TrainConfig:
    """Paths that exist made absolute, so that a run opens from any folder."""
    here: dict[str, Any] = {}
    if config.model not in presets() and expanded(config.model).exists():
        here["model"] = str(expanded(config.model).resolve())
    if config.data not in tones() and not config.data.startswith("hf:"):
        here["data"] = str(expanded(config.data).resolve())
    if config.chat_template and config.chat_template not in presets():
        here["chat_template"] = str(Path(config.chat_template).resolve())
    return dataclasses.replace(config, **here)


def _resolve(config: TrainConfig, base: Base, n_train: int) -> TrainConfig:
    """What was left to choose, chosen."""
    eval_steps = min(config.eval_steps or math.ceil(_total_steps(config, n_train) / 6), _total_steps(config, n_train))
    choices: dict[str, Any] = {"device": base.plan.device, "dtype": base.plan.dtype}
    return dataclasses.replace(
        absolute(config),
        **choices,
        layers=format_layers(injected_layers(config.layers, config.chosen_site, base.n_layers)),
        optim=config.chosen_optim(base.plan.optim),
        site=config.chosen_site,
        irm_dtype=config.chosen_irm_dtype(base.plan.device, base.plan.dtype),
        learning_rate=config.peak_learning_rate,
        dependence_penalty=config.chosen_dependence_penalty,
        eval_steps=eval_steps,
        save_steps=config.save_steps or eval_steps,
    )


def rows_and_fit(job: Job, free: int, before: int | None) -> tuple[int, Fit | None]:
    """In how many rows a step goes through, `before` where a resumed training had so many, and the peaks then; None for a base or
    an optimiser whose sizes are not known."""
    config, plan = job.config, job.base.plan
    lengths, validation = ([len(sample.ids) for sample in samples] for samples in (job.train, job.validation))
    rows = before or config.gradient_accumulation_steps
    if config.device_map == "auto":  # what each of several GPUs will hold is not known
        return rows, None
    try:
        shape = shape_of_config(job.base.model.config.to_dict(), job.base.name, job.base.gguf_path is not None)
    except BaseModelError:
        return rows, None

    def predicted(rows: int) -> Fit:
        step = largest_step(lengths, validation, config, job.arguments.max_steps, rows, processes.count())
        return predict(shape, config, step, plan.device, plan.dtype, config.optim, free)

    try:
        if config.batch == "auto" and not before:
            rows = fewest_rows(predicted, config.batch_size * rows, free)
        return rows, predicted(rows)
    except InputError:  # an optimiser that is not counted
        return rows, None


def _total_steps(config: TrainConfig, n_train: int) -> int:
    if config.max_steps > 0:
        return config.max_steps
    return max(1, math.ceil(config.num_train_epochs * math.ceil(n_train / _samples_a_step(config))))


def _samples_a_step(config: TrainConfig) -> int:
    return config.batch_size * config.gradient_accumulation_steps * processes.count()


def _arguments(config: TrainConfig, run: RunDirectory, n_train: int) -> TrainingArguments:
    try:
        return _training_arguments(config, run, n_train)
    except ValueError as error:  # an optimiser that does not exist, say
        raise InputError(f"transformers refuses the settings ({' '.join(str(error).split())[:200]})", "fix them") from None


def _training_arguments(config: TrainConfig, run: RunDirectory, n_train: int) -> TrainingArguments:
    arguments = TrainingArguments(
        output_dir=str(run.path),
        max_steps=_total_steps(config, n_train),
        per_device_train_batch_size=_samples_a_step(config),  # IrmTrainer splits it into shares and rows
        learning_rate=config.learning_rate,
        lr_scheduler_type=config.lr_scheduler_type,
        warmup_steps=config.warmup_ratio,
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        optim=config.optim,
        fp16=config.dtype == "float16",  # half precision needs its loss scaled
        use_cpu=config.device == "cpu",
        eval_strategy="steps",
        eval_steps=config.eval_steps,
        save_strategy="steps",
        save_steps=config.save_steps,
        save_total_limit=config.save_total_limit,
        metric_for_best_model="loss",
        greater_is_better=False,
        logging_steps=1,
        logging_nan_inf_filter=False,  # a loss that is not finite ends the training
        seed=config.seed,
        remove_unused_columns=False,
        label_names=["labels"],
        report_to="none",
        disable_tqdm=True,
    )
    arguments._n_gpu = min(arguments.n_gpu, 1)  # else one process of several GPUs copies the IRM to each (DataParallel)
    return arguments


def versions() -> dict[str, str]:
    names = ("irm-lite", "torch", "transformers", "bitsandbytes", "numpy", "gguf")
    return {name: importlib.metadata.version(name) for name in names if _installed(name)}


def _installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
