"""Reports what the Trainer does as a run's events and live snapshot, and stops it when the user asks for it."""

import irm_lite.core.machine.bitsandbytes_first  # noqa: F401  # isort: skip
import math
import time
from collections.abc import Callable
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from irm_lite.base.architecture import text_config
from irm_lite.core.errors import TrainingFailed
from irm_lite.core.files.atomic import atomic_path
from irm_lite.core.files.tensors import save_tensors
from irm_lite.core.machine import processes
from irm_lite.core.machine.memory import held_bytes, peak_bytes
from irm_lite.steering.layers import format_layers
from irm_lite.training.divergence import STEPS, lower_rate_hint, steps_far_above
from irm_lite.training.setup.prepare import Job
from irm_lite.training.step.injected_model import InjectedModel
from irm_lite.training.text_check import TextCheck


class Reporter(TrainerCallback):  # type: ignore[misc]
    """Listens to the Trainer of one job."""

    def __init__(
        self, job: Job, model: InjectedModel, emit: Callable[..., None], should_stop: Callable[[], bool], check: TextCheck | None
    ) -> None:
        self.job, self.model, self.emit, self.should_stop, self.check = job, model, emit, should_stop, check
        self.device = job.base.plan.device
        self.clock, self.first_step, self.first_tokens = time.monotonic(), 0, 0
        self.step_began = self.saved = self.clock
        self.training_seconds = 0.0  # without validation and samples
        self.stopped = False  # because the user asked for it
        self.live_fails = False

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.clock, self.first_step, self.first_tokens = time.monotonic(), state.global_step, state.num_input_tokens_seen
        self.saved = self.clock

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.step_began = time.monotonic()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        _synchronize(self.device)
        self.training_seconds += time.monotonic() - self.step_began
        if self.job.config.save_minutes:
            due = time.monotonic() - self.saved >= 60 * self.job.config.save_minutes
            control.should_save |= bool(processes.sum_of(due and processes.first()))
        if processes.sum_of(self.should_stop()):
            self.stopped = True
            control.should_save = control.should_training_stop = True

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: dict[str, float], **_: Any
    ) -> None:
        if "loss" not in logs:
            return
        watched = {"loss": logs["loss"]} | ({} if args.fp16 else {"gradient's norm": logs.get("grad_norm", 0.0)})
        for name, value in watched.items():  # with scaled losses, steps whose gradients overflow are skipped
            if not math.isfinite(value):
                raise TrainingFailed(f"the {name} became {value} at step {state.global_step}", lower_rate_hint(args.learning_rate))
        seconds = time.monotonic() - self.clock
        done = state.global_step - self.first_step
        self.emit(
            "step",
            step=state.global_step,
            max_steps=state.max_steps,
            epoch=round(state.epoch or 0.0, 3),
            loss=logs["loss"],
            learning_rate=logs["learning_rate"],
            grad_norm=logs.get("grad_norm"),
            tokens=state.num_input_tokens_seen,
            tokens_per_second=round((state.num_input_tokens_seen - self.first_tokens) / self.training_seconds, 1),
            eta_seconds=round(seconds / done * (state.max_steps - state.global_step), 1),
            memory_bytes=(peak_bytes if self.device == "cuda" else held_bytes)(self.device),
        )
        self._write_live()
        far_above = steps_far_above(state.log_history, text_config(self.job.base.model).vocab_size, self.model.dependence)
        del state.log_history[1 : -2 * STEPS]  # events.jsonl has it all; it would grow in memory and in each checkpoint
        if far_above and not self.stopped:
            control.should_save = False  # a checkpoint now would replace a good one
        if far_above >= STEPS:
            raise TrainingFailed(
                f"the training diverges: by step {state.global_step} the loss was far above the first for {STEPS} steps in a row",
                lower_rate_hint(args.learning_rate),
            )

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, metrics: dict[str, float], **_: Any
    ) -> None:
        values = {"nll": metrics["eval_loss"], "perplexity": metrics["eval_perplexity"], "figure": metrics["eval_figure"]}
        self.emit("eval", step=state.global_step, **values, of="irm")
        check = self.check
        if check is None or check.base is None or check.newest is None:  # only the first process writes
            return
        first, written = check.newest.answers[0], check.newest
        self.emit("sample", step=state.global_step, prompt=check.questions[0].example.question, text=first.text)
        counts = {"answers": len(written.answers), "sound": written.sound, "ended": written.ended, "base_sound": check.base.sound}
        self.emit("text", step=state.global_step, **counts)
        if text := written.warning(check.base, state.global_step):
            self.emit("warning", text=text, of="text")

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.saved = time.monotonic()
        self.emit("checkpoint", step=state.global_step)

    def _write_live(self) -> None:
        if self.model.mean_abs and processes.first():
            layers = sorted(self.model.mean_abs)
            stacked = torch.stack([self.model.mean_abs[layer] for layer in layers])
            try:
                with atomic_path(self.job.run.live) as temporary:
                    save_tensors(temporary, {"mean_abs": stacked}, {"layers": format_layers(layers)})
            except OSError as error:
                if not self.live_fails:
                    self.emit("warning", text=f"the live heatmap's snapshot cannot be written ({error.strerror or error})")
                self.live_fails = True
            self.model.mean_abs.clear()


def _synchronize(device: str) -> None:
    """Wait until the GPU has finished, so that times include its work."""
    if device == "cuda":
        torch.cuda.synchronize()
    elif device == "mps":
        torch.mps.synchronize()
