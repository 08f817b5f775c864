"""The main path: train an IRM on a frozen base into a run directory.

setup/prepare.py makes all ready, resume_point.py finds where to go on, trainer.py takes the steps, reporter.py reports them.
"""

import irm_lite.core.machine.bitsandbytes_first  # noqa: F401  # isort: skip
import gc
import math
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from transformers import EarlyStoppingCallback, PrinterCallback, TrainerCallback, TrainerState

from irm_lite.base.architecture import decoder_layers
from irm_lite.base.load import Base
from irm_lite.base.presets import read_chat_template
from irm_lite.config import TrainConfig
from irm_lite.core.errors import FailedElsewhere, InputError, Interrupted, RanOut, TrainingFailed
from irm_lite.core.files.atomic import require_folder
from irm_lite.core.files.paths import is_utf8
from irm_lite.core.machine import processes
from irm_lite.core.machine.device import DEVICES, available, decide, probe
from irm_lite.core.machine.give_way import giving_way
from irm_lite.core.machine.launch import set_aside
from irm_lite.core.machine.malloc import freed_memory_kept
from irm_lite.core.machine.memory import peak_bytes, reset_peak
from irm_lite.core.machine.quiet import quiet_libraries
from irm_lite.core.machine.ran_out import told_as_ran_out
from irm_lite.runs.directory import RunDirectory
from irm_lite.runs.events import Event
from irm_lite.runs.trained import TrainedRun
from irm_lite.runs.versions import installed_versions
from irm_lite.runs.write_failure import write_errors_as_failure
from irm_lite.steering.injection import Injection, inject
from irm_lite.steering.irm_files import load_irm
from irm_lite.training.announce import announce
from irm_lite.training.memory_fit import seen_again
from irm_lite.training.nll import mean_nll, perplexity
from irm_lite.training.reporter import Reporter
from irm_lite.training.resume_point import ResumedAt, changes, newest_checkpoint, read_state, require_same_processes, was_reported
from irm_lite.training.setup.prepare import Job, prepare
from irm_lite.training.setup.settings import absolute
from irm_lite.training.step.dequantised import dequantised_once
from irm_lite.training.step.frozen_prefix import first_reached
from irm_lite.training.step.injected_model import InjectedModel, compute_dtype
from irm_lite.training.text_check import TextCheck, warning_of_best
from irm_lite.training.trainer import IrmTrainer

Listener = Callable[[Event], None]
Emit = Callable[..., None]


@set_aside()
def train(
    config: TrainConfig,
    out: Path,
    *,
    base: Base | None = None,
    at: datetime | None = None,
    on_event: Listener = lambda event: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> TrainedRun:
    """Train a new IRM into the run directory `out`, which must not exist. `base`: the one that `config` names, loaded already.
    `at`: the local time that chat templates see (default: now).

    `on_event` gets every event that goes to events.jsonl. Once `should_stop` returns True, the step is finished, a checkpoint
    written and Interrupted raised. Raises InputError kinds for what the user gave, TrainingFailed where it diverges or the disk is
    full, RanOut where memory does; a failed start leaves no run directory behind. With several processes (`accelerate launch`) all
    need the folder of `out`; only the first writes lasting files there and calls `on_event`; each obeys its own `should_stop`.

    >>> from irm_lite import TrainConfig, load_base
    >>> base = load_base("my-llama", quant="none", device="cpu")
    >>> config = TrainConfig(model="my-llama", quant="none", device="cpu", data="joy", max_steps=2, sample_tokens=0)
    >>> steps = []
    >>> run = train(config, Path("runs/joy"), base=base, on_event=lambda event: steps.append(event.get("step")))
    >>> steps[-1], sorted(path.name for path in run.directory.path.glob("irm.*"))
    (2, ['irm.json', 'irm.safetensors'])
    """
    run = RunDirectory(out)
    if not str(out).strip("."):
        raise InputError("the run directory has no name", "give one with --out")
    if not is_utf8(str(out)):
        raise InputError(f"the run directory {str(out)!r} is not UTF-8, and safetensors could not read it", "give another --out")
    _meet(config, base)
    at = at or datetime.fromtimestamp(processes.sum_of(int(time.time()) if processes.first() else 0))  # one time for all of them
    with processes.agreed():
        run.require_absent()
        require_folder(run.path)
        job = prepare(config, run, base, at)
        template = read_chat_template(config.chat_template) if config.chat_template else None
    with _locked(run):
        with processes.agreed():
            if processes.first():
                run.require_absent()  # another training may have started here meanwhile
        try:
            with processes.agreed():
                if processes.first():
                    run.create(job.config, job.base.fingerprint, installed_versions(), template, absolute(config), at)
            return _carry_out(job, None, _emitter(run, on_event), should_stop)
        except BaseException:
            if processes.first() and not any(event["kind"] == "step" for event in run.events.read()):
                run.discard()
            raise


@set_aside()
def resume(
    directory: Path,
    *,
    base: Base | None = None,
    on_event: Listener = lambda event: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> TrainedRun:
    """Go on with a run from its newest undamaged checkpoint, as if it had never stopped; from the beginning where it has none yet.
    The other parameters, and what it raises, are as in `train`."""
    run = RunDirectory(directory)
    config = run.config()
    if base is None and config.device in DEVICES and not available(probe(), config.device):
        raise InputError(
            f"this run was trained on {config.device}, which is not available here",
            f'resume it there, or set device = "auto" in {run.path}/run.toml',
        )
    _meet(config, base)
    emit = _emitter(run, on_event)
    with _locked(run):
        checkpoint = newest_checkpoint(run, emit)
        with processes.agreed():
            require_same_processes(run)
            reached = read_state(checkpoint) if checkpoint else None
            rows = reached.rows if reached else None
            job = prepare(config, run, base, run.rendered_at(), rows=rows, resumed=True)
            for text in changes(run, job):
                emit("warning", text=text)
            if reached and processes.first():
                reached.restore_best(run)
        return _carry_out(job, reached, emit, should_stop)


def _emitter(run: RunDirectory, on_event: Listener) -> Emit:
    """A function that adds an event to the run and hands it to `on_event`, in the first process alone. It raises TrainingFailed
    where the event cannot be written."""

    def emit(kind: str, **values: Any) -> None:
        if processes.first():
            with write_errors_as_failure("events.jsonl", run.path):
                event = run.events.append(kind, **values)
            on_event(event)

    return emit


def _meet(config: TrainConfig, base: Base | None) -> None:
    if config.device_map == "auto" and processes.count() > 1:
        raise InputError("--device-map auto and several processes both want all GPUs", "leave out the launcher, or the flag")
    processes.meet(base.plan.device if base else decide(probe(), config.device, config.dtype, config.quant).device)


@contextmanager
def _locked(run: RunDirectory) -> Iterator[None]:
    """Within: the first process holds the run's lock."""
    with ExitStack() as held:
        with processes.agreed():
            if processes.first():
                held.enter_context(run.lock.held())
        yield


def _carry_out(job: Job, reached: ResumedAt | None, emit: Emit, should_stop: Callable[[], bool]) -> TrainedRun:
    """The training from the start event to the end event; `reached`: where it is resumed. Raises as `train` does."""
    base, config = job.base, job.config
    announce(job, reached, emit)
    reset_peak(base.plan.device)
    if reached is None:
        with told_as_ran_out("take a smaller --model, or a lower --max-length"):
            nll = mean_nll(base, job.samples.validation)
        if not math.isfinite(nll):
            raise TrainingFailed(
                f"the base's NLL on the validation answers is {nll}", "try --dtype float32, or another file of the model"
            )
        emit("eval", step=0, nll=nll, perplexity=perplexity(nll), of="base")
    elif processes.first() and not was_reported(job.run, reached.step):
        emit("checkpoint", step=reached.step)
    started = time.monotonic()
    if reached is not None and reached.ended(job.arguments, config.early_stopping_patience):
        state, stopped = reached.state, False
    else:
        try:
            state, stopped = _steps(job, reached, emit, should_stop)
        except (TrainingFailed, RanOut, FailedElsewhere) as failure:
            with suppress(TrainingFailed):  # the disk may be full
                emit("end", reason=failure.what)
            raise
    return _finish(job, state, stopped, round(time.monotonic() - started, 1), emit)


def _finish(job: Job, state: TrainerState, stopped: bool, seconds: float, emit: Emit) -> TrainedRun:
    """The end event, and the run to work with. Raises Interrupted where the user has stopped it."""
    run, base = job.run, job.base
    peak = peak_bytes(base.plan.device)
    early = state.global_step < job.arguments.max_steps
    if early and stopped:
        emit("end", reason="interrupted", step=state.global_step, seconds=seconds, training_peak_bytes=peak)
        raise Interrupted(f"stopped after step {state.global_step}", f"go on with irm-lite train --resume {run.path}")
    at_best = [event for event in run.events.read() if event.get("step") == state.best_global_step and state.best_global_step]
    if text := warning_of_best(at_best, state.best_global_step, job.config.learning_rate):
        emit("warning", text=text, of="text")
    emit(
        "end",
        reason="no more improvement" if early else "done",
        step=state.global_step,
        best_nll=_nll_of(at_best, state),
        best_step=state.best_global_step,
        seconds=seconds,
        training_peak_bytes=peak,
    )
    processes.sum_of(0)  # wait for the first process, which writes the IRM
    trained = TrainedRun(run, job.config, load_irm(run.path), base.fingerprint)
    trained.base = base  # it is loaded already
    job.irm.to_empty(device="meta")  # the trained IRM's copy in float32 might not fit beside it
    gc.collect()  # the Trainer refers to itself
    trained.irm.to(base.plan.device)
    return trained


def _nll_of(at_best: list[Event], state: TrainerState) -> float | None:
    """The validation NLL of the best step, of its events; what makes it the best counts what is written, too."""
    nlls = [event["nll"] for event in at_best if event["kind"] == "eval"]
    return float(nlls[-1]) if nlls else state.best_metric


def _steps(job: Job, reached: ResumedAt | None, emit: Emit, should_stop: Callable[[], bool]) -> tuple[TrainerState, bool]:
    """Train; returns the state at the end, and whether the user stopped it. Raises TrainingFailed as `train` does."""
    config, base, irm = job.config, job.base, job.irm
    dequantise = job.memory.predicted is not None and job.memory.predicted.dequantised_once
    recompute = config.gradient_checkpointing
    hint = "try a smaller --batch-size with more --gradient-accumulation-steps, or --gradient-checkpointing"

    def warn_of_split(rows: int) -> None:
        emit("warning", text=f"memory ran out: each step is now computed in {rows} rows")

    with (
        told_as_ran_out(hint),
        quiet_libraries(),
        freed_memory_kept(),
        _recomputing(base, recompute),
        dequantised_once(decoder_layers(base.model)[first_reached(base.model, irm) :] if dequantise else ()),
        inject(base.model, irm) as injection,
        giving_way(),
    ):
        injection.compute_dtype = compute_dtype(base, irm)
        model = InjectedModel(base, injection, config.l1, config.dependence_penalty, recompute)
        _keep_prefix(job, model, emit)
        check = _text_check(job, injection)
        reporter = Reporter(job, model, emit, should_stop, check)
        callbacks: list[TrainerCallback] = [reporter]
        if config.early_stopping_patience:
            callbacks.append(EarlyStoppingCallback(config.early_stopping_patience))
        if config.report_to == "tensorboard" and processes.first():
            callbacks.append(_tensorboard(job.run))
        trainer = IrmTrainer(model, job, warn_of_split, check, callbacks=callbacks)
        trainer.remove_callback(PrinterCallback)
        trainer.train(resume_from_checkpoint=str(reached.checkpoint) if reached else None)
    return trainer.state, reporter.stopped


def _text_check(job: Job, injection: Injection) -> TextCheck | None:
    """None where no text is wanted, or the data ask nothing."""
    check = TextCheck(job.base, injection, job.samples.validation, job.config.sample_tokens)
    return check if job.config.sample_tokens and check.questions else None


def _keep_prefix(job: Job, model: InjectedModel, emit: Emit) -> None:
    """Keep the frozen prefix's states of the validation samples, and of the training ones where they are seen more than once."""
    again = seen_again(job.arguments.max_steps, job.arguments.per_device_train_batch_size, len(job.samples.train))
    samples = [*job.samples.validation, *(job.samples.train if again else [])]
    if not job.config.cache_prefix:
        return
    if model.prefix.keep(samples, job.run.path, job.disk_growth) == "no room":
        emit("warning", text="the frozen prefix's states fit neither memory nor disk: they are computed again each time")


@contextmanager
def _recomputing(base: Base, wanted: bool) -> Iterator[None]:
    """Within: gradient checkpointing is prepared; InjectedModel switches it on for its forwards."""
    if wanted:
        base.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    try:
        yield
    finally:
        if wanted:
            base.model.gradient_checkpointing_disable()


def _tensorboard(run: RunDirectory) -> TrainerCallback:
    from torch.utils.tensorboard import SummaryWriter
    from transformers.integrations import TensorBoardCallback

    return TensorBoardCallback(SummaryWriter(log_dir=str(run.tensorboard)))
