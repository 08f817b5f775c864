"""transformers.Trainer with checkpoints of our own: they hold no pickle and appear whole. checkpoint_files.py has their format."""

import irm_lite.core.machine.bitsandbytes_first  # noqa: F401  # isort: skip
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import Trainer, TrainerControl
from transformers.trainer_callback import ExportableState

from irm_lite.core.errors import RunError, TrainingFailed, reason
from irm_lite.core.files.atomic import atomic_folder
from irm_lite.core.files.manifest import write_manifest
from irm_lite.core.machine import processes
from irm_lite.runs import checkpoint_files
from irm_lite.runs.directory import RunDirectory
from irm_lite.runs.write_failure import write_errors_as_failure
from irm_lite.steering.irm_files import load_irm, save_irm
from irm_lite.training.divergence import lower_rate_hint
from irm_lite.training.step.injected_model import InjectedModel

ROWS = "rows"  # of each process, among the callbacks' states in a checkpoint's trainer_state.json


class CheckpointingTrainer(Trainer):  # type: ignore[misc]
    """Saves the IRM of `model` into `run`: in each checkpoint, and beside them wherever it is the best so far.

    A step goes through in `rows` rows, which a checkpoint keeps."""

    control: TrainerControl

    def __init__(self, model: InjectedModel, run: RunDirectory, rows: int, **options: Any) -> None:
        super().__init__(model=model, **options)
        self.injected, self.run, self.rows = model, run, rows

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        best = bool(super()._determine_best_metric(metrics, trial))
        if best and processes.first():
            with write_errors_as_failure("the IRM", self.run.path):
                save_irm(self.injected.irm, self.run.path)
        return best

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        step = self.state.global_step
        if not all(torch.isfinite(parameter).all() for parameter in self.injected.irm.parameters()):
            hint = lower_rate_hint(self.args.learning_rate)
            raise TrainingFailed(f"the IRM's weights became NaN or infinite by step {step}", hint)
        own = [self.rows * (number == processes.number()) for number in range(processes.count())]
        self.state.stateful_callbacks[ROWS] = [int(processes.sum_of(rows)) for rows in own]
        if not processes.first():
            return
        for callback in self.callback_handler.callbacks:
            if isinstance(callback, ExportableState):  # early stopping's patience
                self.state.stateful_callbacks[type(callback).__name__] = callback.state()
        with write_errors_as_failure(f"the checkpoint of step {step}", self.run.path):
            self.run.events.sync()
            with atomic_folder(self.run.checkpoints.of_step(step)) as folder:
                self._write(folder, step)
            self.run.checkpoints.thin(step, self.args.save_total_limit)

    def _write(self, folder: Path, step: int) -> None:
        known = checkpoint_files.save_irms(self.injected.irm, self.run.path, folder, step, self.state.best_global_step)
        checkpoint_files.save_state(folder, checkpoint_files.OPTIMIZER, self.optimizer.state_dict())
        checkpoint_files.save_state(folder, checkpoint_files.SCHEDULER, self.lr_scheduler.state_dict())
        checkpoint_files.save_state(folder, checkpoint_files.RNG, checkpoint_files.rng_state())
        if self.accelerator.scaler is not None:
            checkpoint_files.save_state(folder, checkpoint_files.SCALER, self.accelerator.scaler.state_dict())
        self.state.save_to_json(str(folder / "trainer_state.json"))
        write_manifest(folder, known)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        with _damage_named(resume_from_checkpoint):
            saved = load_irm(Path(resume_from_checkpoint))
            self.injected.irm.load_state_dict(saved.state_dict())
            for name, buffer in saved.named_buffers():  # an older run's IRM is not in units of the stream, and stays so
                self.injected.irm.get_buffer(name).copy_(buffer)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        with _damage_named(checkpoint):
            self.optimizer.load_state_dict(checkpoint_files.load_state(Path(checkpoint), checkpoint_files.OPTIMIZER))
            page_again(getattr(self.optimizer, "optimizer", self.optimizer))
            self.lr_scheduler.load_state_dict(checkpoint_files.load_state(Path(checkpoint), checkpoint_files.SCHEDULER))

    def _load_scaler(self, checkpoint: str | None) -> None:
        if checkpoint is None or self.accelerator.scaler is None:
            return
        if (Path(checkpoint) / f"{checkpoint_files.SCALER}.json").exists():
            with _damage_named(checkpoint):
                self.accelerator.scaler.load_state_dict(checkpoint_files.load_state(Path(checkpoint), checkpoint_files.SCALER))

    def _load_callback_state(self) -> None:
        """Early stopping's patience, which transformers does not restore."""
        kept = self.state.stateful_callbacks
        for callback in self.callback_handler.callbacks:
            if isinstance(callback, ExportableState) and type(callback).__name__ in kept:
                vars(callback).update(kept[type(callback).__name__]["attributes"])

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        with _damage_named(checkpoint):
            checkpoint_files.set_rng_state(checkpoint_files.load_state(Path(checkpoint), checkpoint_files.RNG))


def page_again(optimiser: Any) -> None:
    """Move a paged optimiser's states into paged memory: bitsandbytes loads them into ordinary memory of the GPU."""
    if not getattr(optimiser, "is_paged", False):
        return
    for parameter, state in optimiser.state.items():
        for name in {"state1", "state2"} & state.keys():
            paged = optimiser.get_state_buffer(parameter, dtype=state[name].dtype)
            state[name] = paged.copy_(state[name])


@contextmanager
def _damage_named(checkpoint: str) -> Iterator[None]:
    """Within: whatever torch cannot load of a checkpoint is RunError, one line."""
    try:
        yield
    except RunError:
        raise
    except Exception as error:
        hint = "if run.toml was edited, undo it; else remove this checkpoint and resume from the one before"
        raise RunError(f"{checkpoint} does not fit this run ({reason(error, 160)})", hint) from None
