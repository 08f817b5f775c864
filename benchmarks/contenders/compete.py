"""One contender, from its task to the end of its turns."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TextIO

import torch

from contenders import ours, paper, products, qlora
from contenders.random_base import random_base
from contenders.task import BATCH_SIZE, MAX_LENGTH, Task
from contenders.turns import Turns
from irm_lite.base.load import Base, Quant, load_base
from irm_lite.base.presets import presets
from irm_lite.core.errors import DataError, InputError
from irm_lite.core.machine.quiet import quiet_libraries
from irm_lite.data.dataset import load_dataset
from irm_lite.data.encoding import Sample, encode_all


@dataclass(frozen=True)
class Contender:
    """How one trains, and the base that it wants."""

    run: Callable[[Base, list[Sample], Turns], None]
    quant: Quant = "nf4"
    dtype: str = "auto"


CONTENDERS = {
    "paper": Contender(paper.run, "none", "float32"),
    "qlora": Contender(qlora.run, dtype="float32"),  # the compute dtype that BitsAndBytesConfig has by default
    "qlora-bf16": Contender(qlora.run, dtype="bfloat16"),
    "qlora-checkpointed": Contender(qlora.run, dtype="float32"),
    "lite": Contender(ours.run),
    "lite-float32": Contender(ours.run, dtype="float32"),
    "lite-4bit": Contender(ours.run),
    "lite-checkpointed": Contender(ours.run),
    "static": Contender(ours.run),
    "lora": Contender(ours.run),
    "paper-irm": Contender(ours.run),
    "paper-irm-checkpointed": Contender(ours.run),
    "products": Contender(products.run, "none"),
    "products-float32": Contender(products.run, "none", "float32"),
}


def compete(task: Task, orders: TextIO, out: TextIO) -> None:
    """Load, then train in turns. Raises Over when they are done."""
    contender = CONTENDERS[task.name]
    limit_memory(task)
    if task.shape is None:
        base = load_base(task.model, quant=contender.quant, dtype=contender.dtype, device=task.device)
    else:
        base = random_base((task.shape[0], task.shape[1]), contender.quant, contender.dtype, task.device)
    dataset = load_dataset(task.data)
    train, validation = (encode_all(base.tokenizer, split, MAX_LENGTH)[0] for split in (dataset.train, dataset.validation))
    if not train or not validation:
        raise DataError(f"{dataset.name}: no sample fits into {MAX_LENGTH} tokens", "give shorter ones")
    turns = Turns(task, base, train, validation, task.max_steps or full_training(task.model, len(train)), orders, out)
    with quiet_libraries():
        contender.run(base, train, turns)


def full_training(model: str, samples: int) -> int:
    """Optimiser steps of the epochs that the preset trains: four for the demo model, else three."""
    settings = presets()[model].train if model in presets() else {}
    return math.ceil(float(settings.get("num_train_epochs", 3.0)) * math.ceil(samples / BATCH_SIZE))


def limit_memory(task: Task) -> None:
    """Hold the process to the task's share of the GPU. Raises InputError where there is none."""
    if task.memory is None:
        return
    if not torch.cuda.is_available() or task.device not in ("auto", "cuda"):
        raise InputError("--memory limits a CUDA device, and there is none here", "leave it out")
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(min(task.memory / total, 1.0))
