"""Where a training that was stopped goes on."""

import irm_lite.core.machine.bitsandbytes_first  # noqa: F401  # isort: skip
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import EarlyStoppingCallback, TrainerState, TrainingArguments

from irm_lite.core.errors import RunError
from irm_lite.core.files.reading import read_json
from irm_lite.core.machine import processes
from irm_lite.core.machine.described import machine
from irm_lite.data.encoding import template_of
from irm_lite.runs.checkpoint_files import restore_best
from irm_lite.runs.checkpoints import step_of
from irm_lite.runs.directory import RunDirectory
from irm_lite.runs.versions import installed_versions
from irm_lite.runs.write_failure import write_errors_as_failure
from irm_lite.training.checkpointing_trainer import ROWS
from irm_lite.training.setup.prepare import Job
from irm_lite.training.step.own_repeats import read_repeats

_EXACT = ("torch", "transformers", "bitsandbytes")  # another version of these may round otherwise
_ROUNDS_OTHERWISE = ("system", "processor", "threads")  # so may a computation on another of these
_STATE_TYPES: dict[str, Any] = {
    "global_step": int,
    "max_steps": int,
    "num_input_tokens_seen": int,
    "best_global_step": int | None,
    "best_metric": int | float | None,
    "log_history": list,
    "stateful_callbacks": dict,
}


@dataclass
class ResumedAt:
    """The checkpoint that a training goes on from, and what the Trainer knew there."""

    checkpoint: Path
    state: TrainerState
    rows: int | None  # of this process's steps

    @property
    def step(self) -> int:
        return int(self.state.global_step)

    def ended(self, arguments: TrainingArguments, patience: int) -> bool:
        """Whether the training was complete there, and only its end event is missing."""
        return bool(self.step >= arguments.max_steps or 0 < patience <= _unimproved(self.state))

    def restore_best(self, run: RunDirectory) -> None:
        """Restore the best IRM of that time as the run's, unless the checkpoint's copy is damaged. Raises TrainingFailed where it
        cannot be written."""
        with write_errors_as_failure("the IRM", run.path):
            restore_best(self.checkpoint, run.path, self.step, self.state.best_global_step)


def newest_checkpoint(run: RunDirectory, emit: Callable[..., None]) -> Path | None:
    """The checkpoint to resume from, None where there is none yet; found by the first process for all of them. Raises RunError
    where all are damaged."""
    step = -1
    with processes.agreed():
        if processes.first():
            run.remove_left_overs()
            found = run.checkpoints.newest_sound(lambda text: emit("warning", text=text))
            if found is None and run.checkpoints.all():
                hint = f"remove {run.checkpoints.path} and resume, to train from the beginning"
                raise RunError(f"every checkpoint of {run.path} is damaged", hint)
            step = step_of(found) if found else -1
    step = int(processes.sum_of(step if processes.first() else 0))
    return None if step < 0 else run.checkpoints.of_step(step)


def read_state(checkpoint: Path) -> ResumedAt:
    """What the Trainer knew at a checkpoint. Raises RunError where its trainer_state.json is damaged."""
    try:
        data = read_json(checkpoint / "trainer_state.json")
        for name, kind in _STATE_TYPES.items():
            if not isinstance(data[name], kind):
                raise ValueError(f"{name} is {type(data[name]).__name__}")
        if not all(isinstance(each, dict) and isinstance(each.get("loss", 0.0), int | float) for each in data["log_history"]):
            raise ValueError("log_history holds no numbers")
        best, at_the_end = data["best_metric"], data["global_step"] >= data["max_steps"]
        if (best is None and at_the_end) or (best is not None and not math.isfinite(best)):
            raise ValueError(f"best_metric is {best}")
        state = TrainerState(**data)
        _unimproved(state)  # raises where that is damaged
        read_repeats(state.stateful_callbacks)
        rows = state.stateful_callbacks.get(ROWS)
        return ResumedAt(checkpoint, state, int(rows[processes.number()]) if rows else None)
    except (OSError, ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError) as error:
        raise RunError(f"{checkpoint} is damaged ({error})", "remove it and resume from the one before") from None


def require_same_processes(run: RunDirectory) -> None:
    """Raise RunError where the number of processes has changed: their steps would differ."""
    before = _last_start(run).get("processes", 1)
    if before != processes.count():
        hint = f"accelerate launch --num_processes {before} -m irm_lite train --resume" if before != 1 else "leave out the launcher"
        raise RunError(f"{run.path} was trained by {before} processes at a time, not {processes.count()}", hint)


def changes(run: RunDirectory, job: Job) -> Iterator[str]:
    """A line for each thing that has changed since the run began, so that its results may differ."""
    if text := job.base.fingerprint.match(run.fingerprint(), f"the run {run.path}", job.base.name).warning:
        yield text
    if _last_start(run).get("data_sha256", job.samples.digest) != job.samples.digest:
        yield _other_samples(run, job)
    here = installed_versions()
    others = {name: version for name, version in run.versions().items() if name in _EXACT and here.get(name) != version}
    if others:
        changed = ", ".join(f"{name} {version} -> {here.get(name, 'none')}" for name, version in others.items())
        yield f"the run began with other libraries ({changed}): its last digits may differ"
    before, now = _last_start(run).get("machine", {}), machine(torch.get_num_threads())
    moved = [f"{name} {before[name]} -> {now[name]}" for name in _ROUNDS_OTHERWISE if before.get(name, now[name]) != now[name]]
    if moved and job.base.plan.device == "cpu":
        yield f"the run was trained otherwise ({', '.join(moved)}): its last digits may differ"


def _other_samples(run: RunDirectory, job: Job) -> str:
    """Why the samples are not those that the run began with."""
    if template_of(job.base.tokenizer).is_of_today:
        return (
            f"the samples are not those that the run began with: its chat template asks for the date, which the older irm-lite "
            f"that began it did not keep (if it is not that, {job.config.data} has changed)"
        )
    return f"{job.config.data} has changed since the run began: other texts, or another order"


def was_reported(run: RunDirectory, step: int) -> bool:
    """Whether the events name the checkpoint of a step: a kill right after writing it leaves that out."""
    return any(event["kind"] == "checkpoint" and event.get("step") == step for event in run.events.read())


def _unimproved(state: TrainerState) -> int:
    stopping = state.stateful_callbacks.get(EarlyStoppingCallback.__name__, {}).get("attributes", {})
    return int(stopping.get("early_stopping_patience_counter", 0))


def _last_start(run: RunDirectory) -> dict[str, Any]:
    starts = [event for event in run.events.read() if event["kind"] == "start"]
    return starts[-1] if starts else {}
