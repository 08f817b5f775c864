"""transformers.Trainer, told what is ours: the loss through the injected base, the validation, the checkpoints."""

import irm_lite.core.machine.bitsandbytes_first  # noqa: F401  # isort: skip
import gc
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate.data_loader import prepare_data_loader
from bitsandbytes.optim import AdamW
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerControl, TrainingArguments
from transformers.trainer_callback import ExportableState

from irm_lite.core.errors import MissingPart, RunError, TrainingFailed
from irm_lite.core.files.atomic import atomic_folder
from irm_lite.core.files.manifest import write_manifest
from irm_lite.core.machine import processes
from irm_lite.core.machine.out_of_memory import out_of_memory
from irm_lite.data.encoding import Sample
from irm_lite.data.packing import rows
from irm_lite.runs import checkpoint_state as checkpoint
from irm_lite.runs.directory import RunDirectory
from irm_lite.steering.irm_files import load_irm, save_irm
from irm_lite.training.divergence import lower_rate
from irm_lite.training.nll import perplexity
from irm_lite.training.step.injected_model import InjectedModel
from irm_lite.training.step.rounding_adamw import RoundingAdamW

ROWS = "rows"  # of each process, among the callbacks' states in a checkpoint's trainer_state.json


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

    def create_accelerator_and_postprocess(self) -> None:
        """Without DistributedDataParallel, whose backward cannot be taken again where memory has run out in it, and whose
        buckets are a second copy of the gradients: `training_step` adds them up."""
        super().create_accelerator_and_postprocess()
        self.accelerator.prepare_model = partial(self.accelerator.prepare_model, evaluation_mode=True)

    @staticmethod
    def get_optimizer_cls_and_kwargs(args: TrainingArguments, model: nn.Module | None = None) -> tuple[Any, Any]:
        """Raises MissingPart where the optimiser is of a package that is not here."""
        try:
            kind, options = Trainer.get_optimizer_cls_and_kwargs(args, model)
        except (ImportError, ValueError) as error:
            name, reason = getattr(args.optim, "value", args.optim), " ".join(str(error).split())[:200]
            raise MissingPart(f"--optim {name} cannot be made here ({reason})", "fix that, or say --optim auto") from None
        return (RoundingAdamW if kind is AdamW else kind), options

    def get_train_dataloader(self) -> DataLoader[int]:
        """All samples of a step, in every process: `training_step` takes its share, so that no sample is repeated."""
        numbers = DataLoader(
            self.train_dataset, self.args.train_batch_size, sampler=self._get_train_sampler(), collate_fn=_numbered
        )
        whole: DataLoader[int] = prepare_data_loader(numbers, num_processes=1, process_index=0, use_seedable_sampler=True)
        return whole

    def training_step(self, model: nn.Module, inputs: dict[str, Tensor], num_items_in_batch: Any = None) -> Tensor:
        """Forward and backward of all samples of an optimiser step, those of the other processes among them; returns the
        step's loss, which is normalised over the answer tokens of them all."""
        model.train()
        samples = [self.samples[number] for number in inputs["numbers"].tolist()]
        with processes.agreed():
            loss = self._through(model, processes.share(samples), sum(sample.n_answer for sample in samples))
        if processes.count() > 1:
            for parameter in self.injected.irm.parameters():
                if parameter.grad is None:  # there was no sample for this process
                    parameter.grad = torch.zeros_like(parameter)
                processes.add_up(parameter.grad)
        self.state.num_input_tokens_seen += sum(len(sample.ids) for sample in samples)
        return processes.add_up(loss)

    def _through(self, model: nn.Module, samples: list[Sample], items: int) -> Tensor:
        """In as many rows as fit: where memory runs out, the gradients made so far are dropped and the samples go through in
        twice as many, to the same loss (the penalty on dependence is of rows)."""
        while True:
            try:
                return self._rows_through(model, split(samples, self.rows), items)
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error) or self.rows >= len(samples):
                    raise
            self.rows = len(split(samples, min(2 * self.rows, len(samples))))
            model.zero_grad()
            self.injected.let_go()
            gc.collect()
            if self.args.device.type == "cuda":
                torch.cuda.empty_cache()
            elif self.args.device.type == "mps":
                torch.mps.empty_cache()
            self.on_split(self.rows)

    def _rows_through(self, model: nn.Module, rows: list[list[Sample]], items: int) -> Tensor:
        total = torch.zeros((), device=self.args.device)
        for row in rows:
            with self.injected.stepping():
                loss = model(row, num_items=items)
                self.accelerator.backward(loss)
            total += loss.detach()
        return total

    def evaluate(self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval") -> dict[str, float]:
        """Mean NLL a token over the validation answers, in nats, and its exponential."""
        with processes.agreed():
            own = sum(map(self.injected.nll, processes.share(list(rows(self.validation)))))
        nll = processes.sum_of(own) / sum(sample.n_answer for sample in self.validation)
        if not math.isfinite(nll):
            raise TrainingFailed(f"the validation NLL became {nll} at step {self.state.global_step}", lower_rate(self.args))
        metrics = {f"{metric_key_prefix}_loss": nll, f"{metric_key_prefix}_perplexity": perplexity(nll)}
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        best = bool(super()._determine_best_metric(metrics, trial))
        if best and processes.first():
            with self.run.keeping("the IRM"):
                save_irm(self.injected.irm, self.run.path)
        return best

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        step = self.state.global_step
        if not all(torch.isfinite(parameter).all() for parameter in self.injected.irm.parameters()):
            raise TrainingFailed(f"the IRM's weights became NaN or infinite by step {step}", lower_rate(self.args))
        own = [self.rows * (number == processes.number()) for number in range(processes.count())]
        self.state.stateful_callbacks[ROWS] = [int(processes.sum_of(rows)) for rows in own]
        if not processes.first():
            return
        for callback in self.callback_handler.callbacks:
            if isinstance(callback, ExportableState):  # early stopping's patience
                self.state.stateful_callbacks[type(callback).__name__] = callback.state()
        with self.run.keeping(f"the checkpoint of step {step}"):
            self.run.sync_events()
            with atomic_folder(self.run.checkpoint(step)) as folder:
                known = checkpoint.save_irms(self.injected.irm, self.run.path, folder, step, self.state.best_global_step)
                checkpoint.save_state(folder, checkpoint.OPTIMIZER, self.optimizer.state_dict())
                checkpoint.save_state(folder, checkpoint.SCHEDULER, self.lr_scheduler.state_dict())
                checkpoint.save_state(folder, checkpoint.RNG, checkpoint.rng_state())
                if self.accelerator.scaler is not None:
                    checkpoint.save_state(folder, checkpoint.SCALER, self.accelerator.scaler.state_dict())
                self.state.save_to_json(str(folder / "trainer_state.json"))
                write_manifest(folder, known)
            self.run.thin_checkpoints(step, self.args.save_total_limit)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        with _damage_named(resume_from_checkpoint):
            self.injected.irm.load_state_dict(load_irm(Path(resume_from_checkpoint)).state_dict())

    def _load_optimizer_and_scheduler(self, checkpoint_folder: str | None) -> None:
        if checkpoint_folder is None:
            return
        with _damage_named(checkpoint_folder):
            self.optimizer.load_state_dict(checkpoint.load_state(Path(checkpoint_folder), checkpoint.OPTIMIZER))
            page_again(getattr(self.optimizer, "optimizer", self.optimizer))
            self.lr_scheduler.load_state_dict(checkpoint.load_state(Path(checkpoint_folder), checkpoint.SCHEDULER))

    def _load_scaler(self, checkpoint_folder: str | None) -> None:
        if checkpoint_folder is None or self.accelerator.scaler is None:
            return
        if (Path(checkpoint_folder) / f"{checkpoint.SCALER}.json").exists():
            with _damage_named(checkpoint_folder):
                self.accelerator.scaler.load_state_dict(checkpoint.load_state(Path(checkpoint_folder), checkpoint.SCALER))

    def _load_callback_state(self) -> None:
        """What of a checkpoint's state transformers does not put back: early stopping's patience."""
        kept = self.state.stateful_callbacks
        for callback in self.callback_handler.callbacks:
            if isinstance(callback, ExportableState) and type(callback).__name__ in kept:
                vars(callback).update(kept[type(callback).__name__]["attributes"])

    def _load_rng_state(self, checkpoint_folder: str | None) -> None:
        if checkpoint_folder is None:
            return
        with _damage_named(checkpoint_folder):
            checkpoint.set_rng_state(checkpoint.load_state(Path(checkpoint_folder), checkpoint.RNG))


def _numbered(numbers: list[int]) -> dict[str, Tensor]:
    return {"numbers": torch.tensor(numbers)}


def split(samples: Sequence[Sample], count: int) -> list[list[Sample]]:
    """In `count` parts of equal numbers, as far as that goes; none is empty."""
    size = max(1, math.ceil(len(samples) / count))
    return [list(samples[start : start + size]) for start in range(0, len(samples), size)]


def page_again(optimiser: Any) -> None:
    """bitsandbytes loads the states of a paged optimiser into ordinary memory of the GPU."""
    if not getattr(optimiser, "is_paged", False):
        return
    for parameter, state in optimiser.state.items():
        for name in {"state1", "state2"} & state.keys():
            paged = optimiser.get_state_buffer(parameter, dtype=state[name].dtype)
            state[name] = paged.copy_(state[name])


@contextmanager
def _damage_named(folder: str) -> Iterator[None]:
    """Whatever a checkpoint's contents make torch complain of is one line."""
    try:
        yield
    except RunError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:160]
        hint = "if run.toml was edited, undo it; else remove this checkpoint and resume from the one before"
        raise RunError(f"{folder} does not fit this run ({reason})", hint) from None
