"""Train an IRM on a frozen base: data, run directory, Trainer, events."""

import irm_lite.bitsandbytes_first  # noqa: F401  # isort: skip
import dataclasses
import gc
import importlib.metadata
import importlib.util
import math
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import EarlyStoppingCallback, PrinterCallback, TrainerCallback, TrainerState, TrainingArguments, set_seed

from irm_lite import processes
from irm_lite.architecture import decoder_layers
from irm_lite.atomic import free_space, require_folder
from irm_lite.base_model import Base
from irm_lite.base_shape import shape_of_config
from irm_lite.chat_format import Sample, encode_all, read_chat_template
from irm_lite.checkpoint import restore_best
from irm_lite.config import TrainConfig
from irm_lite.dataset import load_dataset, tones
from irm_lite.device import decide, probe
from irm_lite.errors import (
    BaseModelError,
    DataError,
    FailedElsewhere,
    InputError,
    Interrupted,
    MissingPart,
    RunError,
    TrainingFailed,
)
from irm_lite.fit import Fit, fewest_rows, largest_step, optimiser_bytes, predict
from irm_lite.heap import kept
from irm_lite.injected_model import InjectedModel
from irm_lite.injection import inject
from irm_lite.irm import IRM, build_irm, load_irm
from irm_lite.layers import format_layers, needs_depth, parse_layers
from irm_lite.memory_free import free_bytes
from irm_lite.memory_peak import peak_bytes, reset_peak
from irm_lite.paths import expanded
from irm_lite.prefix import first_reached
from irm_lite.presets import presets
from irm_lite.quiet import quiet_libraries
from irm_lite.reporter import Reporter
from irm_lite.run import Event, RunDirectory
from irm_lite.trained import TrainedRun, load_base_of
from irm_lite.trainer import IrmTrainer, kept_rows, mean_nll, out_of_memory, perplexity
from irm_lite.unquantised import kept_unquantised

Listener = Callable[[Event], None]
_REST_BYTES = 32_000_000  # events, the live snapshot and what file systems round up


def train(
    config: TrainConfig,
    out: Path,
    *,
    base: Base | None = None,
    on_event: Listener = lambda event: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> TrainedRun:
    """Train a new IRM into the run directory `out`, which must not exist. `base`: the one that `config` names, loaded already.

    `on_event` gets every event that goes to events.jsonl. Once `should_stop` says so, the step is finished, a checkpoint
    written and Interrupted raised. Raises InputError kinds for what the user gave, TrainingFailed where it diverges, memory runs
    out or the disk is full; a failed start leaves no run directory behind. Of several processes (`accelerate launch`) all
    see the folder of `out`; the first alone writes there, and calls `on_event`; each heeds its `should_stop`.
    """
    run = RunDirectory(out)
    if not str(out).strip("."):
        raise InputError("the run directory has no name", "give one with --out")
    _meet(config, base)
    with processes.agreed():
        run.require_absent()
        require_folder(run.path)
        job = _prepare(config, run, base)
        template = read_chat_template(config.chat_template) if config.chat_template else None
    with _writing(run):
        with processes.agreed():
            if processes.first():
                run.require_absent()  # another may have written here meanwhile
        try:
            with processes.agreed():
                if processes.first():
                    run.create(job.config, job.base.fingerprint, _versions(), template, asked=absolute(config))
            return _fit(job, None, on_event, should_stop)
        except BaseException:
            if processes.first() and not any(event["kind"] == "step" for event in run.events()):
                run.discard()
            raise


def resume(
    directory: Path,
    *,
    base: Base | None = None,
    on_event: Listener = lambda event: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> TrainedRun:
    """Go on with a run from its newest sound checkpoint, as it would have gone on; from its beginning where it was stopped before
    the first. Takes a loaded base and raises as `train` does."""
    run = RunDirectory(directory)
    config = run.config()
    _meet(config, base)
    with _writing(run):
        checkpoint = _newest_checkpoint(run, on_event)
        with processes.agreed():
            _require_as_many(run)
            state = _read_state(checkpoint) if checkpoint else None
            job = _prepare(config, run, base)
            warning = job.base.fingerprint.fit(run.fingerprint(), f"the run {run.path}", job.base.name).warning
            if checkpoint and state and processes.first():
                restore_best(checkpoint, run.path, state.global_step, state.best_global_step)
        if warning and processes.first():
            on_event(run.append_event("warning", text=warning))
        return _fit(job, _Reached(checkpoint, state) if checkpoint and state else None, on_event, should_stop)


@dataclass
class _Reached:
    """Where a resumed training goes on."""

    checkpoint: Path
    state: TrainerState

    def ended(self, arguments: TrainingArguments, patience: int) -> bool:
        """Whether the training had come to its end there, and only the end was not written any more."""
        stopping = self.state.stateful_callbacks.get(EarlyStoppingCallback.__name__, {}).get("attributes", {})
        unimproved = int(stopping.get("early_stopping_patience_counter", 0))
        return bool(self.state.global_step >= arguments.max_steps or 0 < patience <= unimproved)


def _newest_checkpoint(run: RunDirectory, on_event: Listener) -> Path | None:
    """The first process looks, for all. Raises RunError where there are checkpoints and none is sound."""
    step = -1
    with processes.agreed():
        if processes.first():
            run.remove_left_overs()
            found = run.newest_checkpoint(lambda text: on_event(run.append_event("warning", text=text)))
            if found is None and run.checkpoints():
                raise RunError(
                    f"no checkpoint of {run.path} is sound", f"remove {run.checkpoint(0).parent} and resume, to begin anew"
                )
            step = int(found.name.removeprefix("step-")) if found else -1
    step = int(processes.sum_of(step if processes.first() else 0))
    return None if step < 0 else run.checkpoint(step)


def _read_state(checkpoint: Path) -> TrainerState:
    try:
        return TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise RunError(f"{checkpoint} is damaged ({error})", "remove it and resume from the one before") from None


def _meet(config: TrainConfig, base: Base | None) -> None:
    if config.device_map == "auto" and processes.count() > 1:
        raise InputError("--device-map auto and several processes both want all GPUs", "leave out the launcher, or the flag")
    processes.meet(base.plan.device if base else decide(probe(), config.device, config.dtype, config.quant).device)


def _require_as_many(run: RunDirectory) -> None:
    """Other processes than before would make other steps of the same data."""
    starts = [event for event in run.events() if event["kind"] == "start"]
    before = starts[-1].get("processes", 1) if starts else 1
    if before != processes.count():
        mend = f"accelerate launch --num_processes {before} -m irm_lite train --resume" if before != 1 else "leave out the launcher"
        raise RunError(f"{run.path} was trained by {before} processes at a time, not {processes.count()}", mend)


@contextmanager
def _writing(run: RunDirectory) -> Iterator[None]:
    """The run's lock is held by the first process."""
    with ExitStack() as held:
        with processes.agreed():
            if processes.first():
                held.enter_context(run.writing())
        yield


@dataclass
class _Job:
    """All that a training needs, checked before anything is written."""

    run: RunDirectory
    config: TrainConfig  # resolved: nothing is left at `auto` or 0
    base: Base
    irm: IRM
    train: list[Sample]
    validation: list[Sample]
    too_long: int
    unanswered: int
    arguments: TrainingArguments
    load_peak: int | None  # bytes; None where the base was loaded before
    space: int  # bytes that the run directory will yet take


def _prepare(config: TrainConfig, run: RunDirectory, base: Base | None) -> _Job:
    if config.report_to == "tensorboard" and importlib.util.find_spec("tensorboard") is None:
        raise MissingPart("--report-to tensorboard needs the tensorboard package", "pip install 'irm-lite[tensorboard]'")
    dataset = load_dataset(config.data, config.answer_column, config.download)
    load_peak = None
    if base is None:
        device = decide(probe(), config.device, config.dtype, config.quant).device
        reset_peak(device)
        with _shortage_named("take a smaller --model, or quantise it by --quant nf4"):
            base = load_base_of(config)
        load_peak = peak_bytes(device)
    layers = _layers(config, base)
    train_samples, long_train = encode_all(base.tokenizer, dataset.train, config.max_length)
    validation, long_validation = encode_all(base.tokenizer, dataset.validation, config.max_length)
    _, long_test = encode_all(base.tokenizer, dataset.test, config.max_length)
    if not train_samples or not validation:
        raise DataError(f"{dataset.name}: no sample fits into {config.max_length} tokens", "raise --max-length")
    resolved = _resolve(config, base, len(train_samples))
    set_seed(resolved.seed)
    options: dict[str, Any] = {"width": resolved.width, "rank": resolved.rank} if resolved.irm == "lite" else {}
    irm = build_irm(resolved.irm, base.hidden_size, layers, resolved.chosen_site, **options)
    irm = irm.to(base.plan.device, getattr(torch, resolved.irm_dtype))
    arguments = _arguments(resolved, run, len(train_samples))
    space = _require_space(resolved, run, irm)
    too_long = long_train + long_validation + long_test
    return _Job(run, resolved, base, irm, train_samples, validation, too_long, dataset.unanswered, arguments, load_peak, space)


def _require_space(config: TrainConfig, run: RunDirectory, irm: IRM) -> int:
    """Bytes that a training will take on the disk beside what it has there: the checkpoints that are kept and one that is being
    written, the IRM, the next one, and the rest. Raises RunError where so much is not free."""
    weights = sum(parameter.nbytes for parameter in irm.parameters())
    count, each = sum(parameter.numel() for parameter in irm.parameters()), next(irm.parameters()).element_size()
    checkpoint = weights + optimiser_bytes(count, each, config.optim)
    needed = (config.save_total_limit + 1) * checkpoint + 2 * weights + _REST_BYTES - run.size_of_checkpoints()
    free = free_space(run.path)
    if needed > free:
        raise RunError(
            f"{run.path} needs {needed / 1e9:.2f} GB of disk, {checkpoint / 1e9:.2f} a checkpoint, and {free / 1e9:.2f} are free",
            "make space, or choose another place or a smaller --save-total-limit",
        )
    return max(needed, 0)


def _layers(config: TrainConfig, base: Base) -> tuple[int, ...]:
    """At block outputs layer 0 is left out unless it is named: llama.cpp has no direction there."""
    first = 1 if config.chosen_site == "block" and needs_depth(config.layers) else 0
    return parse_layers(config.layers, base.n_layers, first)


def absolute(config: TrainConfig) -> TrainConfig:
    """Paths that exist made absolute, so that a run opens from any folder."""
    here: dict[str, Any] = {}
    if config.model not in presets() and expanded(config.model).exists():
        here["model"] = str(expanded(config.model).resolve())
    if config.data not in tones() and not config.data.startswith("hf:"):
        here["data"] = str(expanded(config.data).resolve())
    if config.chat_template and config.chat_template not in presets():
        here["chat_template"] = str(Path(config.chat_template).resolve())
    return dataclasses.replace(config, **here)


def _resolve(config: TrainConfig, base: Base, n_train: int) -> TrainConfig:
    """What was left to choose, chosen."""
    eval_steps = min(config.eval_steps or math.ceil(_total_steps(config, n_train) / 6), _total_steps(config, n_train))
    choices: dict[str, Any] = {"device": base.plan.device, "dtype": base.plan.dtype}
    return dataclasses.replace(
        absolute(config),
        **choices,
        layers=format_layers(_layers(config, base)),
        optim=config.chosen_optim(base.plan.optim),
        site=config.chosen_site,
        irm_dtype=config.chosen_irm_dtype(base.plan.device, base.plan.dtype),
        learning_rate=config.peak_learning_rate,
        dependence_penalty=config.chosen_dependence_penalty,
        eval_steps=eval_steps,
        save_steps=config.save_steps or eval_steps,
    )


def _fit(job: _Job, reached: _Reached | None, on_event: Listener, should_stop: Callable[[], bool]) -> TrainedRun:
    run, config, base, irm = job.run, job.config, job.base, job.irm

    def emit(kind: str, **values: Any) -> None:
        if processes.first():
            with run.keeping("events.jsonl"):
                event = run.append_event(kind, **values)
            on_event(event)

    free = free_bytes(base.plan.device) // (processes.on_this_machine() if base.plan.device == "cpu" else 1)
    rows, fit = _rows_and_fit(job, free)
    rows = (reached and kept_rows(reached.state)) or rows  # in others the gradients' last bits would be others
    emit(
        "start",
        model=config.model,
        data=config.data,
        irm=irm.kind,
        parameters=sum(parameter.numel() for parameter in irm.parameters()),
        layers=format_layers(irm.layers),
        device=base.plan.device,
        dtype=base.plan.dtype,
        samples={"train": len(job.train), "validation": len(job.validation), "too_long": job.too_long},
        max_steps=job.arguments.max_steps,
        processes=processes.count(),
        rows=rows,
        load_peak_bytes=job.load_peak,
        predicted_load_bytes=fit and fit.load_peak,
        predicted_training_bytes=fit and fit.training_peak,
        resumed_from=reached.checkpoint.name if reached else None,
    )
    if fit and fit.training_peak > free:
        mend = (
            "--gradient-checkpointing"
            if config.batch == "auto"
            else "--batch auto, a smaller --batch-size or --gradient-checkpointing"
        )
        needed = f"{fit.training_peak / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free"
        emit("warning", text=f"this training needs about {needed}: {mend} would need less")
    if job.too_long and reached is None:
        emit("warning", text=f"{job.too_long} samples are longer than {config.max_length} tokens and left out")
    if job.unanswered and reached is None:
        emit("warning", text=f"{job.unanswered} questions of {config.data} have no answer and are passed over")
    reset_peak(base.plan.device)
    if reached is None:
        with _shortage_named("take a smaller --model, or a lower --max-length"):
            nll = mean_nll(base, job.validation)
        emit("eval", step=0, nll=nll, perplexity=perplexity(nll), of="base")
    elif processes.first() and not _told(run, reached.state.global_step):  # it was killed right after writing it
        emit("checkpoint", step=reached.state.global_step)
    started = time.monotonic()
    if reached is not None and reached.ended(job.arguments, config.early_stopping_patience):
        state, stopped = reached.state, False
    else:
        try:
            state, stopped = _steps(job, reached, rows, fit is not None and fit.keeps_unquantised, emit, should_stop)
        except (TrainingFailed, FailedElsewhere) as failure:
            with suppress(TrainingFailed):  # the disk may be full
                emit("end", reason=failure.what if isinstance(failure, TrainingFailed) else str(failure))
            raise
    seconds = round(time.monotonic() - started, 1)
    peak = peak_bytes(base.plan.device)
    early = state.global_step < job.arguments.max_steps
    if early and stopped:
        emit("end", reason="interrupted", step=state.global_step, seconds=seconds, training_peak_bytes=peak)
        raise Interrupted(f"stopped after step {state.global_step}", f"go on with irm-lite train --resume {run.path}")
    emit(
        "end",
        reason="no more improvement" if early else "done",
        step=state.global_step,
        best_nll=state.best_metric,
        best_step=state.best_global_step,
        seconds=seconds,
        training_peak_bytes=peak,
    )
    processes.sum_of(0)  # the first has written all of it by then
    trained = TrainedRun(run, config, load_irm(run.path), base.fingerprint)
    trained.base = base  # it is loaded already
    irm.to_empty(device="meta")  # two of them, one in float32, might not fit
    gc.collect()  # the Trainer refers to itself
    trained.irm.to(base.plan.device)
    return trained


def _steps(
    job: _Job,
    reached: _Reached | None,
    rows: int,
    unquantised: bool,
    emit: Callable[..., None],
    should_stop: Callable[[], bool],
) -> tuple[TrainerState, bool]:
    """Train; gives the state at the end, and whether the user has stopped it. Raises TrainingFailed as `train` does."""
    run, config, base, irm = job.run, job.config, job.base, job.irm
    recompute = config.gradient_checkpointing
    mend = "try a smaller --batch-size with more --gradient-accumulation-steps, or --gradient-checkpointing"

    def tell_split(rows: int) -> None:
        emit("warning", text=f"memory ran out: each step now goes through in {rows} rows")

    with (
        _shortage_named(mend),
        quiet_libraries(),
        kept(),
        _recomputing(base, recompute),
        kept_unquantised(decoder_layers(base.model)[first_reached(base.model, irm) :] if unquantised else ()),
        inject(base.model, irm) as injection,
    ):
        injection.compute_dtype = _compute_dtype(base, irm)
        model = InjectedModel(base, injection, config.l1, config.dependence_penalty, recompute)
        _keep_prefix(job, model, emit)
        reporter = Reporter(emit, model, run, base, job.validation, config.sample_tokens, config.save_minutes, should_stop)
        callbacks: list[TrainerCallback] = [reporter]
        if config.early_stopping_patience:
            callbacks.append(EarlyStoppingCallback(config.early_stopping_patience))
        if config.report_to == "tensorboard" and processes.first():
            callbacks.append(_tensorboard(run))
        trainer = IrmTrainer(model, run, job.arguments, job.train, job.validation, rows, tell_split, callbacks=callbacks)
        trainer.remove_callback(PrinterCallback)
        trainer.train(resume_from_checkpoint=str(reached.checkpoint) if reached else None)
    return trainer.state, reporter.stopped


def _told(run: RunDirectory, step: int) -> bool:
    return any(event["kind"] == "checkpoint" and event.get("step") == step for event in run.events())


@contextmanager
def _shortage_named(mend: str) -> Iterator[None]:
    """Within: memory that runs out is TrainingFailed."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        raise TrainingFailed("memory ran out", mend) from error


def _rows_and_fit(job: _Job, free: int) -> tuple[int, Fit | None]:
    """In how many rows a step goes through, and the peaks then; None for a base or an optimiser whose sizes are not known."""
    config, plan = job.config, job.base.plan
    lengths, validation = ([len(sample.ids) for sample in samples] for samples in (job.train, job.validation))
    rows = config.gradient_accumulation_steps
    if config.device_map == "auto":  # what each of several GPUs will hold is not known
        return rows, None
    try:
        shape = shape_of_config(job.base.model.config.to_dict(), job.base.name, job.base.gguf_path is not None)
    except BaseModelError:
        return rows, None

    def predicted(rows: int) -> Fit:
        step = largest_step(lengths, validation, config, job.arguments.max_steps, rows, processes.count())
        return predict(shape, config, step, plan.device, plan.dtype, config.optim, free)

    try:
        if config.batch == "auto":
            rows = fewest_rows(predicted, config.batch_size * rows, free)
        return rows, predicted(rows)
    except InputError:  # an optimiser that is not counted
        return rows, None


def _total_steps(config: TrainConfig, n_train: int) -> int:
    if config.max_steps > 0:
        return config.max_steps
    return max(1, math.ceil(config.num_train_epochs * math.ceil(n_train / _samples_a_step(config))))


def _samples_a_step(config: TrainConfig) -> int:
    return config.batch_size * config.gradient_accumulation_steps * processes.count()


def _arguments(config: TrainConfig, run: RunDirectory, n_train: int) -> TrainingArguments:
    try:
        return _training_arguments(config, run, n_train)
    except ValueError as error:  # an optimiser that does not exist, say
        raise InputError(f"transformers refuses the settings ({' '.join(str(error).split())[:200]})", "mend them") from None


def _training_arguments(config: TrainConfig, run: RunDirectory, n_train: int) -> TrainingArguments:
    arguments = TrainingArguments(
        output_dir=str(run.path),
        max_steps=_total_steps(config, n_train),
        per_device_train_batch_size=_samples_a_step(config),  # IrmTrainer splits it into shares and rows
        learning_rate=config.learning_rate,
        lr_scheduler_type=config.lr_scheduler_type,
        warmup_steps=config.warmup_ratio,
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        optim=config.optim,
        fp16=config.dtype == "float16",  # half precision needs its loss scaled
        use_cpu=config.device == "cpu",
        eval_strategy="steps",
        eval_steps=config.eval_steps,
        save_strategy="steps",
        save_steps=config.save_steps,
        save_total_limit=config.save_total_limit,
        metric_for_best_model="loss",
        greater_is_better=False,
        logging_steps=1,
        logging_nan_inf_filter=False,  # a loss that is not finite ends the training
        seed=config.seed,
        remove_unused_columns=False,
        label_names=["labels"],
        report_to="none",
        disable_tqdm=True,
    )
    arguments._n_gpu = min(arguments.n_gpu, 1)  # else one process of several GPUs copies the IRM to each (DataParallel)
    return arguments


def _compute_dtype(base: Base, irm: IRM) -> torch.dtype | None:
    """The paper's IRM is as costly as the base: its products are taken in the base's number format. None: as its weights are."""
    halved = base.model.dtype == torch.bfloat16 and irm.kind == "paper"
    return torch.bfloat16 if halved else None


def _keep_prefix(job: _Job, model: InjectedModel, emit: Callable[..., None]) -> None:
    """Keep what is frozen of the validation samples, and of the training ones where they are seen more than once."""
    a_pass = math.ceil(len(job.train) / job.arguments.per_device_train_batch_size)
    samples = [*job.validation, *(job.train if job.arguments.max_steps > a_pass else [])]
    if not job.config.cache_prefix:
        return
    if model.prefix.keep(samples, job.run.path, job.space) == "no room":
        emit("warning", text="the frozen prefix's states fit neither memory nor disk: they are computed anew each time")


@contextmanager
def _recomputing(base: Base, wanted: bool) -> Iterator[None]:
    """Gradient checkpointing prepared, and undone afterwards; InjectedModel switches it on for its forwards."""
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


def _versions() -> dict[str, str]:
    names = ("irm-lite", "torch", "transformers", "bitsandbytes", "numpy", "gguf")
    return {name: importlib.metadata.version(name) for name in names if _installed(name)}


def _installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
