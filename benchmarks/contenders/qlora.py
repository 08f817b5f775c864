"""PEFT QLoRA, r=16 on all linear layers, by transformers' Trainer with its defaults and dynamic padding."""

import importlib.util
import tempfile
from typing import Any

import torch
from transformers import DataCollatorForSeq2Seq, PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from contenders.samples import Batch
from contenders.task import BATCH_SIZE, SEED
from contenders.turns import Turns
from irm_lite.base.load import Base
from irm_lite.core.errors import MissingPart
from irm_lite.data.encoding import Sample


class Pace(TrainerCallback):  # type: ignore[misc]
    """Hands the Trainer's steps to the turns."""

    def __init__(self, turns: Turns, served: list[int]) -> None:
        self.turns, self.served = turns, served

    def on_train_begin(self, args: Any, state: Any, control: Any, **options: Any) -> None:
        self.turns.begin(sum(each.numel() for each in options["model"].parameters() if each.requires_grad))

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.turns.step(self.served[state.global_step - 1])


def run(base: Base, train: list[Sample], turns: Turns) -> None:
    """Train until the turns are over. Raises MissingPart without PEFT."""
    model = adapted(base, turns.task.name == "qlora-checkpointed")
    if base.tokenizer.pad_token is None:
        base.tokenizer.pad_token = base.tokenizer.eos_token
    collate = DataCollatorForSeq2Seq(base.tokenizer)
    served: list[int] = []  # real tokens of each batch: the loader is one ahead of the training

    def collated(features: list[dict[str, list[int]]]) -> Any:
        served.append(sum(len(feature["input_ids"]) for feature in features))
        return collate(features)

    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            max_steps=turns.max_steps,
            per_device_train_batch_size=BATCH_SIZE,
            learning_rate=2e-4,
            use_cpu=base.plan.device == "cpu",
            dataloader_pin_memory=base.plan.device == "cuda",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            seed=SEED,
        )
        callbacks = [Pace(turns, served)]
        trainer = Trainer(model, arguments, data_collator=collated, train_dataset=features(train), callbacks=callbacks)
        trainer.remove_callback(PrinterCallback)
        trainer.train()


def adapted(base: Base, checkpointing: bool) -> Any:
    """The base with adapters in its layers: `base.model` has them, too."""
    if importlib.util.find_spec("peft") is None:
        raise MissingPart("QLoRA needs the peft package", "pip install 'irm-lite[bench]'")
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training

    model: Any = base.model
    model.is_loaded_in_4bit = True  # by which PEFT knows a model that transformers has quantised
    torch.manual_seed(SEED)
    if base.plan.dtype == "float32":  # it brings all to fp32, which bfloat16 is chosen against
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=checkpointing)
    return get_peft_model(model, LoraConfig(r=16, target_modules="all-linear", task_type="CAUSAL_LM"))


def features(samples: Batch) -> list[dict[str, list[int]]]:
    """Samples as transformers' collators take them; labels are -100 but on the answers."""
    return [
        {
            "input_ids": sample.ids,
            "attention_mask": [1] * len(sample.ids),
            "labels": [-100] * sample.answer_start + sample.ids[sample.answer_start :],
        }
        for sample in samples
    ]
