"""A training's settings: what the configuration leaves open, decided, and the same in transformers' terms."""

import irm_lite.core.machine.bitsandbytes_first  # noqa: F401  # isort: skip
import dataclasses
import math
from pathlib import Path
from typing import Any

from transformers import TrainingArguments

from irm_lite.base.load import Base
from irm_lite.base.presets import presets
from irm_lite.config import TrainConfig
from irm_lite.core.errors import InputError, reason
from irm_lite.core.files.paths import expanded
from irm_lite.core.machine import processes
from irm_lite.data.dataset import tones
from irm_lite.steering.layers import format_layers


def resolved(config: TrainConfig, base: Base, layers: tuple[int, ...], n_train: int) -> TrainConfig:
    """`config` with nothing left at `auto` or 0, for an IRM on these `layers` of `base` and `n_train` training samples."""
    eval_steps = min(config.eval_steps or math.ceil(total_steps(config, n_train) / 6), total_steps(config, n_train))
    choices: dict[str, Any] = {"device": base.plan.device, "dtype": base.plan.dtype}
    return dataclasses.replace(
        absolute(config.chosen()),
        **choices,
        layers=format_layers(layers),
        optim=config.chosen_optim(base.plan.optim),
        irm_dtype=config.chosen_irm_dtype(base.plan.device, base.plan.dtype),
        eval_steps=eval_steps,
        save_steps=config.save_steps or eval_steps,
    )


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


def total_steps(config: TrainConfig, n_train: int) -> int:
    """Optimiser steps of the whole training."""
    if config.max_steps > 0:
        return config.max_steps
    return max(1, math.ceil(config.num_train_epochs * math.ceil(n_train / _samples_a_step(config))))


def _samples_a_step(config: TrainConfig) -> int:
    """Samples of an optimiser step, of all processes together."""
    return config.batch_size * config.gradient_accumulation_steps * processes.count()


def training_arguments(config: TrainConfig, run: Path, n_train: int) -> TrainingArguments:
    """The `resolved` configuration as transformers' Trainer wants it. Raises InputError where transformers refuses it."""
    try:
        return _training_arguments(config, run, n_train)
    except ValueError as error:  # an optimiser that does not exist, say
        raise InputError(f"transformers refuses the settings ({reason(error)})", "fix them") from None


def _training_arguments(config: TrainConfig, run: Path, n_train: int) -> TrainingArguments:
    arguments = TrainingArguments(
        output_dir=str(run),
        max_steps=total_steps(config, n_train),
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
        metric_for_best_model="figure",
        greater_is_better=False,
        logging_steps=1,
        logging_nan_inf_filter=False,  # a loss that is not finite ends the training
        seed=config.seed,
        remove_unused_columns=False,
        label_names=["labels"],
        report_to="none",
        disable_tqdm=True,
    )
    arguments._n_gpu = min(arguments.n_gpu, 1)  # else one process with several GPUs copies the IRM to each (DataParallel)
    return arguments
