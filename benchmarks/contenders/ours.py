"""Ours, by its public face: `train` with its defaults but for what is said below, its events as the clock."""

import tempfile
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from unittest.mock import patch

from contenders.task import BATCH_SIZE, MAX_LENGTH, SEED
from contenders.turns import Turns
from irm_lite.base.load import Base
from irm_lite.config import TrainConfig
from irm_lite.data.encoding import Sample
from irm_lite.runs.events import Event
from irm_lite.training import train as training

_KINDS = {"lite": "lite", "static": "static", "lora": "lora", "paper-irm": "paper"}
_RECOMPUTING, _FOUR_BITS, _FLOAT32 = "-checkpointed", "-4bit", "-float32"


def run(base: Base, train_samples: list[Sample], turns: Turns) -> None:
    """Train until the turns are over."""
    task = turns.task
    config = TrainConfig.from_dict(
        {
            "model": task.model,
            "data": task.data,
            "irm": _KINDS[task.name.removesuffix(_FLOAT32).removesuffix(_RECOMPUTING).removesuffix(_FOUR_BITS)],
            "gradient_checkpointing": task.name.endswith(_RECOMPUTING),
            "device": task.device,
            "dtype": base.plan.dtype,
            "max_steps": turns.max_steps,
            "batch_size": BATCH_SIZE,
            "max_length": MAX_LENGTH,
            "seed": SEED,
            "eval_steps": turns.max_steps,  # the last step's event comes before its validation and checkpoint
            "save_steps": turns.max_steps,
            "sample_tokens": 0,
            "early_stopping_patience": 0,
            # What is asked to find loops is no part of a step at equal data; of the whole recipe, as to an NLL, it is.
            **({} if task.to_nll else {"loop_penalty": 0.0, "phrase_penalty": 0.0}),
        },
        "benchmark",
    )
    trained = seen = 0

    def on_event(event: Event) -> None:
        nonlocal trained, seen
        if event["kind"] == "start":
            trained = event["parameters"]
        elif event["kind"] == "eval":  # of the base: the last event before the first step
            turns.begin(trained)
        elif event["kind"] == "step":
            tokens, seen = event["tokens"] - seen, event["tokens"]
            turns.step(tokens)

    with tempfile.TemporaryDirectory() as folder, weights_left_in_4_bits(_FOUR_BITS in task.name):
        training.train(config, Path(folder) / "run", base=base, on_event=on_event)


def weights_left_in_4_bits(wanted: bool) -> AbstractContextManager[object]:
    """Within, if wanted: a training unpacks the base's weights at each use, as where memory is short."""
    if not wanted:
        return nullcontext()
    return patch("irm_lite.training.train.dequantised_once", lambda blocks: nullcontext())
