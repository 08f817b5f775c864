"""Where a training that was stopped goes on."""

import irm_lite.core.machine.bitsandbytes_first  # noqa: F401  # isort: skip
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import EarlyStoppingCallback, TrainerState, TrainingArguments

from irm_lite.core.errors import RunError
from irm_lite.core.files.reading import read_json
from irm_lite.core.machine import processes
from irm_lite.runs.checkpoint_state import restore_best
from irm_lite.runs.directory import RunDirectory
from irm_lite.training.prepare import Job, versions
from irm_lite.training.trainer import ROWS

_EXACT = ("torch", "transformers", "bitsandbytes")  # another version of these may round otherwise
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
        """Whether the training had come to its end there, and only the end was not written any more."""
        return bool(self.step >= arguments.max_steps or 0 < patience <= _unimproved(self.state))

    def restore_best(self, run: RunDirectory) -> None:
        """Put back what the run offers as its IRM, unless the checkpoint's is damaged. Raises TrainingFailed where that cannot be
        written."""
        with run.keeping("the IRM"):
            restore_best(self.checkpoint, run.path, self.step, self.state.best_global_step)


def newest_checkpoint(run: RunDirectory, emit: Callable[..., None]) -> Path | None:
    """The first process looks, for all. Raises RunError where there are checkpoints and none is sound."""
    step = -1
    with processes.agreed():
        if processes.first():
            run.remove_left_overs()
            found = run.newest_checkpoint(lambda text: emit("warning", text=text))
            if found is None and run.checkpoints():
                raise RunError(
                    f"no checkpoint of {run.path} is sound", f"remove {run.checkpoint(0).parent} and resume, to begin anew"
                )
            step = int(found.name.removeprefix("step-")) if found else -1
    step = int(processes.sum_of(step if processes.first() else 0))
    return None if step < 0 else run.checkpoint(step)


def read_state(checkpoint: Path) -> ResumedAt:
    """Raises RunError where the checkpoint's trainer_state.json is not what the Trainer wrote."""
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
        _unimproved(state)  # what it cannot read is damage too
        rows = state.stateful_callbacks.get(ROWS)
        return ResumedAt(checkpoint, state, int(rows[processes.number()]) if rows else None)
    except (OSError, ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError) as error:
        raise RunError(f"{checkpoint} is damaged ({error})", "remove it and resume from the one before") from None


def require_as_many(run: RunDirectory) -> None:
    """Other processes than before would make other steps of the same data."""
    before = _last_start(run).get("processes", 1)
    if before != processes.count():
        hint = f"accelerate launch --num_processes {before} -m irm_lite train --resume" if before != 1 else "leave out the launcher"
        raise RunError(f"{run.path} was trained by {before} processes at a time, not {processes.count()}", hint)


def changes(run: RunDirectory, job: Job) -> Iterator[str]:
    """What is not as it was when the run began, so that it will not be quite the run that it would have been: a line each."""
    if text := job.base.fingerprint.match(run.fingerprint(), f"the run {run.path}", job.base.name).warning:
        yield text
    if _last_start(run).get("data_sha256", job.data_digest) != job.data_digest:
        yield f"{job.config.data} is not what it was when the run began: other texts, or in another order"
    here = versions()
    others = {name: version for name, version in run.versions().items() if name in _EXACT and here.get(name) != version}
    if others:
        told = ", ".join(f"{name} {version} -> {here.get(name, 'none')}" for name, version in others.items())
        yield f"the run began with other libraries ({told}): its last digits may be others"


def was_told(run: RunDirectory, step: int) -> bool:
    """Whether the checkpoint of a step stands in the events: a kill right after it was written leaves it out."""
    return any(event["kind"] == "checkpoint" and event.get("step") == step for event in run.events())


def _unimproved(state: TrainerState) -> int:
    stopping = state.stateful_callbacks.get(EarlyStoppingCallback.__name__, {}).get("attributes", {})
    return int(stopping.get("early_stopping_patience_counter", 0))


def _last_start(run: RunDirectory) -> dict[str, Any]:
    starts = [event for event in run.events() if event["kind"] == "start"]
    return starts[-1] if starts else {}
