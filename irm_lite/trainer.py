"""transformers.Trainer, told what is ours: the loss through the injected base, the validation, the checkpoints."""

import math
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Trainer, TrainerControl, TrainingArguments

from irm_lite import checkpoint
from irm_lite.architecture import decoder_layers
from irm_lite.atomic import atomic_folder
from irm_lite.base_model import Base
from irm_lite.chat_format import Sample
from irm_lite.errors import RunError, TrainingFailed
from irm_lite.injection import Injection
from irm_lite.irm import load_irm, save_irm
from irm_lite.packing import Row, answer_logits, pack, rows
from irm_lite.run import RunDirectory

LIVE_SECONDS = 2.0  # the live heatmap's snapshot is not taken oftener


class InjectedModel(nn.Module):
    """What the Trainer sees: a module whose parameters are the IRM's alone, and whose forward runs the injected base."""

    def __init__(self, base: Base, injection: Injection, l1: float = 0.0, dependence: float = 0.0, recompute: bool = False) -> None:
        super().__init__()
        self.irm = injection.irm
        self._hidden = (base, injection)  # in a tuple, so that the base is no submodule
        self.l1, self.dependence, self.recompute = l1, dependence, recompute
        self.tokens_seen = 0
        self.mean_abs: dict[int, Tensor] = {}  # layer -> (H,), of the newest observed forward
        self._observed_at = -math.inf

    def forward(self, num_items: Tensor | int | None = None, **row: Tensor) -> Tensor:
        """The loss of one packed row: NLL summed over answer tokens / num_items, plus the penalties, mean over layers.

        `num_items` counts the answer tokens of all rows of an optimiser step; penalties are weighted with the row's share.
        """
        base, injection = self._hidden
        penalties: dict[int, Tensor] = {}
        injection.observers.clear()  # only now: the backward pass recomputes with the observers of its forward
        if self.l1 or self.dependence:

            def penalise(layer: int, vector: Tensor) -> None:
                penalties[layer] = self._penalty(vector)

            injection.observers.append(penalise)
        if time.monotonic() - self._observed_at >= LIVE_SECONDS:
            injection.observers.append(self._observe)
            self._observed_at = time.monotonic()
        with _recomputed(base) if self.recompute else nullcontext():
            logits = answer_logits(base.model, row)
        self.tokens_seen += row["input_ids"].numel()
        labels = row["labels"].to(logits.device)
        items = len(labels) if num_items is None else num_items
        loss = F.cross_entropy(logits.float(), labels, reduction="sum") / items
        if penalties:
            loss = loss + len(labels) / items * torch.stack(list(penalties.values())).mean()
        return loss

    def _penalty(self, vector: Tensor) -> Tensor:
        """Of one layer's output (1, T, H): the paper's l1 * sum |v|, mean over tokens, and that of varying with the input."""
        penalty = vector.new_zeros(())
        if self.l1:
            penalty = penalty + self.l1 * vector.abs().sum(-1).mean()
        if self.dependence:
            penalty = penalty + self.dependence * varying_share(vector.flatten(0, -2))
        return penalty

    def _observe(self, layer: int, vector: Tensor) -> None:
        self.mean_abs[layer] = vector.detach().abs().mean(dim=(0, 1)).float().cpu()


def varying_share(vectors: Tensor) -> Tensor:
    """Of vectors (N, H): the share of their mean squared norm that is not their mean's, 0 where all are alike.

    An output far below any effect (squared norm 1e-4) counts as not varying: training starts at zero.
    """
    spread = (vectors - vectors.mean(0)).square().sum(-1).mean()
    return spread / (vectors.square().sum(-1).mean() + 1e-4)


@contextmanager
def _recomputed(base: Base) -> Iterator[None]:
    """Gradient checkpointing for this forward: transformers looks at the blocks' own training flag, the modules inside
    stay in eval mode. Off outside, since with it on transformers drops the KV cache that generation needs."""
    blocks = decoder_layers(base.model)
    for block in blocks:
        block.training = True
    try:
        yield
    finally:
        for block in blocks:
            block.training = False


class IrmTrainer(Trainer):  # type: ignore[misc]
    """Trains the IRM of an InjectedModel; checkpoints hold no pickle and appear whole."""

    control: TrainerControl

    def __init__(self, model: InjectedModel, base: Base, run: RunDirectory, args: TrainingArguments, **options: Any) -> None:
        super().__init__(model=model, args=args, data_collator=pack, **options)
        self.injected = model
        self.base = base
        self.run = run
        self.model_accepts_loss_kwargs = True  # so that num_items_in_batch is counted over accumulated rows
        self._loss_shifts_labels = False  # our labels stand where they are predicted

    def compute_loss(
        self,
        model: nn.Module,
        inputs: Row,
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        loss = model(num_items=num_items_in_batch, **inputs)
        return (loss, {}) if return_outputs else loss

    def evaluate(self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval") -> dict[str, float]:
        """Mean NLL a token over the validation answers, in nats, and its exponential."""
        nll = mean_nll(self.base, self.eval_dataset if eval_dataset is None else eval_dataset)
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
        logits = answer_logits(base.model, row)
        total += F.cross_entropy(logits.float(), row["labels"].to(logits.device), reduction="sum").item()
        count += len(row["labels"])
    return total / count


def perplexity(nll: float) -> float:
    """exp(NLL); where that is beyond a float, the largest that is not."""
    return math.exp(min(nll, 700.0))
