"""transformers.Trainer, told what is ours: the loss through the injected base, the validation, the checkpoints."""

import gc
import math
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Trainer, TrainerControl, TrainingArguments

from irm_lite import checkpoint
from irm_lite.answer_loss import answer_nll
from irm_lite.atomic import atomic_folder
from irm_lite.base_model import Base
from irm_lite.chat_format import Sample
from irm_lite.errors import RunError, TrainingFailed
from irm_lite.injected_model import InjectedModel
from irm_lite.irm import load_irm, save_irm
from irm_lite.packing import answer_hidden, pack, rows
from irm_lite.run import RunDirectory


class IrmTrainer(Trainer):  # type: ignore[misc]
    """Trains the IRM of an InjectedModel; checkpoints hold no pickle and appear whole."""

    control: TrainerControl

    def __init__(
        self,
        model: InjectedModel,
        run: RunDirectory,
        args: TrainingArguments,
        train: Sequence[Sample],
        validation: Sequence[Sample],
        rows: int,
        on_split: Callable[[int], None],
        **options: Any,
    ) -> None:
        """A step takes `rows` rows, more once memory has run out: `on_split` is told how many then."""
        numbers = range(len(train))
        super().__init__(model=model, args=args, data_collator=_numbered, train_dataset=numbers, eval_dataset=numbers, **options)
        self.injected = model
        self.run = run
        self.samples, self.validation = train, validation
        self.rows, self.on_split = rows, on_split

    def training_step(self, model: nn.Module, inputs: dict[str, Tensor], num_items_in_batch: Any = None) -> Tensor:
        """Forward and backward of all samples of an optimiser step, in as many rows as fit; returns the step's loss.

        Where memory runs out, the gradients made so far are dropped and the same samples go through in twice as many rows:
        the loss is normalised over the step, so that its gradient is the same.
        """
        model.train()
        samples = [self.samples[number] for number in inputs["numbers"].tolist()]
        answers = torch.tensor(sum(sample.n_answer for sample in samples), device=self.args.device)
        items = self.accelerator.reduce(answers, "sum") / self.accelerator.num_processes  # DDP takes the mean of gradients
        while True:
            try:
                loss = self._rows_through(model, split(samples, self.rows), items)
                self.injected.tokens_seen += sum(len(sample.ids) for sample in samples)
                return loss
            except RuntimeError as error:
                if not out_of_memory(error) or self.rows >= len(samples):
                    raise
            self.rows = min(2 * self.rows, len(samples))
            model.zero_grad()
            gc.collect()
            if self.args.device.type == "cuda":
                torch.cuda.empty_cache()
            self.on_split(self.rows)

    def _rows_through(self, model: nn.Module, rows: list[list[Sample]], items: Tensor) -> Tensor:
        total = torch.zeros((), device=self.args.device)
        for number, row in enumerate(rows, 1):
            alone = nullcontext() if number == len(rows) else self.accelerator.no_sync(model)
            with alone, self.injected.stepping():
                loss = model(row, num_items=items)
                self.accelerator.backward(loss)
            total += loss.detach()
        return total

    def evaluate(self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval") -> dict[str, float]:
        """Mean NLL a token over the validation answers, in nats, and its exponential."""
        nll = sum(map(self.injected.nll, rows(self.validation))) / sum(sample.n_answer for sample in self.validation)
        if not math.isfinite(nll):
            raise TrainingFailed(f"the validation NLL became {nll} at step {self.state.global_step}", "try a lower --learning-rate")
        metrics = {f"{metric_key_prefix}_loss": nll, f"{metric_key_prefix}_perplexity": perplexity(nll)}
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        best = bool(super()._determine_best_metric(metrics, trial))
        if best:
            save_irm(self.injected.irm, self.run.path)
        return best

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        with atomic_folder(self.run.checkpoint(self.state.global_step)) as folder:
            save_irm(self.injected.irm, folder)
            checkpoint.save_state(folder, checkpoint.OPTIMIZER, self.optimizer.state_dict())
            checkpoint.save_state(folder, checkpoint.SCHEDULER, self.lr_scheduler.state_dict())
            checkpoint.save_state(folder, checkpoint.RNG, checkpoint.rng_state())
            for callback in [*self.callback_handler.callbacks, self.control]:
                if hasattr(callback, "state"):  # transformers' ExportableState: early stopping's patience
                    self.state.stateful_callbacks[type(callback).__name__] = callback.state()
            self.state.save_to_json(str(folder / "trainer_state.json"))
        for old in self.run.checkpoints()[: -self.args.save_total_limit]:
            shutil.rmtree(old)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        with _damage_named(resume_from_checkpoint):
            self.injected.irm.load_state_dict(load_irm(Path(resume_from_checkpoint)).state_dict())

    def _load_optimizer_and_scheduler(self, checkpoint_folder: str | None) -> None:
        if checkpoint_folder is None:
            return
        with _damage_named(checkpoint_folder):
            self.optimizer.load_state_dict(checkpoint.load_state(Path(checkpoint_folder), checkpoint.OPTIMIZER))
            self.lr_scheduler.load_state_dict(checkpoint.load_state(Path(checkpoint_folder), checkpoint.SCHEDULER))

    def _load_rng_state(self, checkpoint_folder: str | None) -> None:
        if checkpoint_folder is None:
            return
        with _damage_named(checkpoint_folder):
            checkpoint.set_rng_state(checkpoint.load_state(Path(checkpoint_folder), checkpoint.RNG))


def _numbered(numbers: list[int]) -> dict[str, Tensor]:
    return {"numbers": torch.tensor(numbers)}


def split(samples: Sequence[Sample], count: int) -> list[list[Sample]]:
    """In `count` parts of equal numbers, as far as that goes; none is empty."""
    size = math.ceil(len(samples) / count)
    return [list(samples[start : start + size]) for start in range(0, len(samples), size)]


def out_of_memory(error: RuntimeError) -> bool:
    """Whether torch had no memory left: on a GPU by its type, elsewhere by its words."""
    words = ("out of memory", "can't allocate memory", "not enough memory")
    return isinstance(error, torch.OutOfMemoryError) or any(each in str(error) for each in words)


@contextmanager
def _damage_named(folder: str) -> Iterator[None]:
    """Whatever a checkpoint's contents make torch complain of is one line."""
    try:
        yield
    except RunError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:160]
        mend = "if run.toml was edited, undo it; else remove this checkpoint and resume from the one before"
        raise RunError(f"{folder} does not fit this run ({reason})", mend) from None


@torch.no_grad()
def mean_nll(base: Base, samples: Iterable[Sample]) -> float:
    """Mean NLL a token, in nats, over the answers, of the base as it is injected at the moment."""
    total, count = 0.0, 0
    for group in rows(list(samples)):
        row = pack(group)
        hidden = answer_hidden(base.model, row)
        total += answer_nll(base.model.get_output_embeddings(), hidden, row["labels"].to(hidden.device)).item()
        count += len(row["labels"])
    return total / count


def perplexity(nll: float) -> float:
    """exp(NLL); where that is beyond a float, the largest that is not."""
    return math.exp(min(nll, 700.0))
