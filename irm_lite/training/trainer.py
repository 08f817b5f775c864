"""The optimiser step and the validation: how samples go through the injected base, in rows that fit into memory."""

import irm_lite.core.machine.bitsandbytes_first  # noqa: F401  # isort: skip
import gc
import math
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any

import torch
from accelerate.data_loader import prepare_data_loader
from bitsandbytes.optim import AdamW
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import Trainer, TrainingArguments

from irm_lite.core.errors import MissingPart, TrainingFailed, reason
from irm_lite.core.machine import processes
from irm_lite.core.machine.memory import release_cached
from irm_lite.core.machine.ran_out import what_ran_out
from irm_lite.data.encoding import Sample
from irm_lite.data.packing import rows
from irm_lite.training.checkpointing_trainer import CheckpointingTrainer
from irm_lite.training.divergence import lower_rate_hint
from irm_lite.training.nll import perplexity
from irm_lite.training.setup.prepare import Job
from irm_lite.training.step.injected_model import InjectedModel
from irm_lite.training.step.own_repeats import LOOPS, PHRASES, OwnRepeats, read_repeats
from irm_lite.training.step.rounding_adamw import RoundingAdamW
from irm_lite.training.text_check import TextCheck


class IrmTrainer(CheckpointingTrainer):
    """Trains the IRM of an InjectedModel on a job's samples."""

    def __init__(
        self, model: InjectedModel, job: Job, on_split: Callable[[int], None], check: TextCheck | None = None, **options: Any
    ) -> None:
        """A step goes through in the rows that the job plans, more once memory has run out: `on_split` gets their number then.
        `check`: what is written counts in which step is the best."""
        numbers = range(len(job.samples.train))
        data = {"data_collator": _numbered, "train_dataset": numbers, "eval_dataset": numbers}
        super().__init__(model, job.run, job.memory.rows, args=job.arguments, **data, **options)
        self.samples, self.validation, self.on_split = job.samples.train, job.samples.validation, on_split
        self.check = check
        weights = {LOOPS: job.config.loop_penalty, PHRASES: job.config.phrase_penalty}
        self.penalties = {sort: weight for sort, weight in weights.items() if weight}
        self.own_repeats = _own_repeats(job, self.penalties)

    def create_accelerator_and_postprocess(self) -> None:
        """Without DistributedDataParallel: its backward cannot be repeated after memory has run out, and its buckets are a second
        copy of the gradients. `training_step` adds up the processes' gradients instead."""
        super().create_accelerator_and_postprocess()
        self.accelerator.prepare_model = partial(self.accelerator.prepare_model, evaluation_mode=True)

    @staticmethod
    def get_optimizer_cls_and_kwargs(args: TrainingArguments, model: nn.Module | None = None) -> tuple[Any, Any]:
        """Raises MissingPart where the optimiser's package is not installed."""
        try:
            kind, options = Trainer.get_optimizer_cls_and_kwargs(args, model)
        except (ImportError, ValueError) as error:
            name = getattr(args.optim, "value", args.optim)
            raise MissingPart(f"--optim {name} cannot be made here ({reason(error)})", "fix that, or use --optim auto") from None
        return (RoundingAdamW if kind is AdamW else kind), options

    def get_train_dataloader(self) -> DataLoader[int]:
        """Gives every process the numbers of all samples of a step: `training_step` takes its share, so that none is repeated."""
        numbers = DataLoader(
            self.train_dataset, self.args.train_batch_size, sampler=self._get_train_sampler(), collate_fn=_numbered
        )
        whole: DataLoader[int] = prepare_data_loader(numbers, num_processes=1, process_index=0, use_seedable_sampler=True)
        return whole

    def training_step(self, model: nn.Module, inputs: dict[str, Tensor], num_items_in_batch: Any = None) -> Tensor:
        """Forward and backward of all samples of an optimiser step, each process with its share; returns the step's loss, a mean
        over the answer tokens of all processes."""
        model.train()
        samples = [self.samples[number] for number in inputs["numbers"].tolist()]
        with processes.agreed():
            loss = self._in_rows_that_fit(model, processes.share(samples), sum(sample.weight for sample in samples))
            self._away_from_repeats()
        if processes.count() > 1:
            for parameter in self.injected.irm.parameters():
                if parameter.grad is None:  # there was no sample for this process
                    parameter.grad = torch.zeros_like(parameter)
                processes.add_up(parameter.grad)
        self.state.num_input_tokens_seen += sum(len(sample.ids) for sample in samples)
        return processes.add_up(loss)

    def _away_from_repeats(self) -> None:
        """Add to the gradients what makes less likely what the model itself says again, where it is time to look for that."""
        own, step = self.own_repeats, self.state.global_step
        if own is None:
            return
        if own.newest is None:  # of a resumed training the checkpoint knows them
            own.newest = read_repeats(self.state.stateful_callbacks)
        if own.due(step):
            own.ask(step)
            self.state.stateful_callbacks.update(own.state())
        for sort, repeats in own.of_step(step).items():
            places = sum(len(repeat.places) for repeat in repeats)
            if shared := processes.share(repeats):
                with self.injected.stepping():
                    self.accelerator.backward(self.penalties[sort] / places * self.injected.unlikelihood(shared))

    def _in_rows_that_fit(self, model: nn.Module, samples: list[Sample], items: float) -> Tensor:
        """Forward and backward in `self.rows` rows. Where memory runs out, the gradients so far are dropped and the samples go
        through in twice as many rows, to the same loss (but for the penalty on dependence, which is taken row by row)."""
        while True:
            try:
                return self._in_rows(model, split(samples, self.rows), items)
            except (RuntimeError, MemoryError) as error:
                if what_ran_out(error) != "memory" or self.rows >= len(samples):
                    raise
            self.rows = len(split(samples, min(2 * self.rows, len(samples))))
            model.zero_grad()
            self.injected.release()
            gc.collect()
            release_cached(self.args.device.type)
            self.on_split(self.rows)

    def _in_rows(self, model: nn.Module, rows: list[list[Sample]], items: float) -> Tensor:
        """The sum of the rows' losses; their gradients add up."""
        total = torch.zeros((), device=self.args.device)
        for row in rows:
            with self.injected.stepping():
                loss = model(row, num_items=items)
                self.accelerator.backward(loss)
            total += loss.detach()
        return total

    def evaluate(self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval") -> dict[str, float]:
        """Mean NLL a token over the validation answers, in nats, and its exponential. `figure`: that NLL, raised where answers
        that the base writes soundly have become babble; the step where it is lowest is the best."""
        with processes.agreed():
            own = sum(map(self.injected.nll, processes.share(list(rows(self.validation)))))
        nll = processes.sum_of(own) / sum(sample.n_answer for sample in self.validation)
        if not math.isfinite(nll):
            hint = lower_rate_hint(self.args.learning_rate)
            raise TrainingFailed(f"the validation NLL became {nll} at step {self.state.global_step}", hint)
        values = {"loss": nll, "perplexity": perplexity(nll), "figure": nll + self._price_of_text()}
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in values.items()}
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _price_of_text(self) -> float:
        """In nats, the same in all processes; the first one writes."""
        price = 0.0
        with processes.agreed():
            if self.check is not None and processes.first():
                price = self.check.ask()
        return float(processes.sum_of(price))


def _own_repeats(job: Job, sorts: Collection[str]) -> OwnRepeats | None:
    """None where none has a price."""
    return OwnRepeats(job.base, job.samples.train, job.arguments.max_steps, job.config.seed, sorts) if sorts else None


def _numbered(numbers: list[int]) -> dict[str, Tensor]:
    return {"numbers": torch.tensor(numbers)}


def split(samples: Sequence[Sample], count: int) -> list[list[Sample]]:
    """At most `count` parts of equal size, the last one smaller where they do not divide; none is empty."""
    size = max(1, math.ceil(len(samples) / count))
    return [list(samples[start : start + size]) for start in range(0, len(samples), size)]
