"""Train an IRM on a frozen base: data, run directory, Trainer, events."""

import irm_lite.bitsandbytes_first  # noqa: F401  # isort: skip
import dataclasses
import importlib.metadata
import importlib.util
import math
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import EarlyStoppingCallback, PrinterCallback, TrainerCallback, TrainerState, TrainingArguments, set_seed

from irm_lite import processes
from irm_lite.base_model import Base
from irm_lite.base_shape import shape_of_config
from irm_lite.chat_format import Sample, encode_all, read_chat_template
from irm_lite.config import TrainConfig
from irm_lite.dataset import load_dataset, tones
from irm_lite.device import decide, probe
from irm_lite.errors import BaseModelError, DataError, InputError, Interrupted, MissingPart, RunError, TrainingFailed
from irm_lite.fit import Fit, fewest_rows, largest_step, predict
from irm_lite.heap import kept
from irm_lite.injected_model import InjectedModel
from irm_lite.injection import inject
from irm_lite.irm import IRM, build_irm, load_irm
from irm_lite.layers import format_layers, needs_depth, parse_layers
from irm_lite.memory_free import free_bytes
from irm_lite.memory_peak import peak_bytes, reset_peak
from irm_lite.paths import expanded
from irm_lite.presets import presets
from irm_lite.quiet import quiet_libraries
from irm_lite.reporter import Reporter
from irm_lite.run import Event, RunDirectory
from irm_lite.trained import TrainedRun, load_base_of
from irm_lite.trainer import IrmTrainer, mean_nll, out_of_memory, perplexity

Listener = Callable[[Event], None]


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
    written and Interrupted raised. Raises InputError kinds for what the user gave, TrainingFailed where the loss is not
    finite or memory runs out; a failed start leaves no run directory behind. Of several processes (`accelerate launch`) all
    see the folder of `out`; the first alone writes there, and calls `on_event`; each heeds its `should_stop`.
    """
    run = RunDirectory(out)
    if not str(out).strip("."):
        raise InputError("the run directory has no name", "give one with --out")
    _meet(config, base)
    with processes.agreed():
        run.require_absent()
        job = _prepare(config, run, base)
        template = read_chat_template(config.chat_template) if config.chat_template else None
    with _writing(run):
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
    """Go on with a run from its newest checkpoint, as it would have gone on. Takes a loaded base and raises as `train` does."""
    run = RunDirectory(directory)
    config = run.config()
    _meet(config, base)
    with processes.agreed():
        _require_as_many(run)
        checkpoint = run.newest_checkpoint()
        if checkpoint is None:
            raise RunError(f"{directory} has no checkpoint yet", "remove it and train again")
        try:
            TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
        except (OSError, ValueError, TypeError) as error:
            raise RunError(f"{checkpoint} is damaged ({error})", "remove it and resume from the one before") from None
        job = _prepare(config, run, base)
        warning = job.base.fingerprint.fit(run.fingerprint(), f"the run {run.path}", job.base.name).warning
    with _writing(run):
        if warning and processes.first():
            on_event(run.append_event("warning", text=warning))
        return _fit(job, checkpoint, on_event, should_stop)


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


def _prepare(config: TrainConfig, run: RunDirectory, base: Base | None) -> _Job:
    if config.report_to == "tensorboard" and importlib.util.find_spec("tensorboard") is None:
        raise MissingPart("--report-to tensorboard needs the tensorboard package", "pip install 'irm-lite[tensorboard]'")
    dataset = load_dataset(config.data, config.answer_column, config.download)
    load_peak = None
    if base is None:
        device = decide(probe(), config.device, config.dtype, config.quant).device
        reset_peak(device)
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
    too_long = long_train + long_validation + long_test
    return _Job(run, resolved, base, irm, train_samples, validation, too_long, dataset.unanswered, arguments, load_peak)


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
        optim=base.plan.optim if config.optim == "auto" else config.optim,
        site=config.chosen_site,
        irm_dtype=config.chosen_irm_dtype(base.plan.device, base.plan.dtype),
        learning_rate=config.peak_learning_rate,
        dependence_penalty=config.chosen_dependence_penalty,
        eval_steps=eval_steps,
        save_steps=config.save_steps or eval_steps,
    )


def _fit(job: _Job, checkpoint: Path | None, on_event: Listener, should_stop: Callable[[], bool]) -> TrainedRun:
    run, config, base, irm = job.run, job.config, job.base, job.irm

    def emit(kind: str, **values: Any) -> None:
        if processes.first():
            on_event(run.append_event(kind, **values))

    free = free_bytes(base.plan.device) // processes.on_this_machine()
    rows, fit = _rows_and_fit(job, free)
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
        resumed_from=checkpoint.name if checkpoint else None,
    )

    def tell_split(rows: int) -> None:
        emit("warning", text=f"memory ran out: each step now goes through in {rows} rows, with the same gradient")

    if fit and fit.training_peak > free:
        mend = (
            "--gradient-checkpointing"
            if config.batch == "auto"
            else "--batch auto, a smaller --batch-size or --gradient-checkpointing"
        )
        needed = f"{fit.training_peak / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free"
        emit("warning", text=f"this training needs about {needed}: {mend} would need less")
    if job.too_long:
        emit("warning", text=f"{job.too_long} samples are longer than {config.max_length} tokens and left out")
    if job.unanswered:
        emit("warning", text=f"{job.unanswered} questions of {config.data} have no answer and are passed over")
    reset_peak(base.plan.device)
    if checkpoint is None:
        nll = mean_nll(base, job.validation)
        emit("eval", step=0, nll=nll, perplexity=perplexity(nll), of="base")
    started = time.monotonic()
    recompute = config.gradient_checkpointing
    try:
        with quiet_libraries(), kept(), _recomputing(base, recompute), inject(base.model, irm) as injection:
            injection.compute_dtype = _compute_dtype(base, irm)
            model = InjectedModel(base, injection, config.l1, config.dependence_penalty, recompute)
            _keep_prefix(job, model, emit)
            reporter = Reporter(emit, model, run, base, job.validation, config.sample_tokens, should_stop)
            callbacks: list[TrainerCallback] = [reporter]
            if config.early_stopping_patience:
                callbacks.append(EarlyStoppingCallback(config.early_stopping_patience))
            if config.report_to == "tensorboard" and processes.first():
                callbacks.append(_tensorboard(run))
            trainer = IrmTrainer(model, run, job.arguments, job.train, job.validation, rows, tell_split, callbacks=callbacks)
            trainer.remove_callback(PrinterCallback)
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        emit("end", reason="out of memory")
        raise TrainingFailed(
            "memory ran out", "try a smaller --batch-size with more --gradient-accumulation-steps, or --gradient-checkpointing"
        ) from error
    except ImportError as error:
        raise MissingPart(
            f"--optim {config.optim} needs a package that is not here ({error})", "install it, or say --optim auto"
        ) from None
    state = trainer.state
    seconds = round(time.monotonic() - started, 1)
    peak = peak_bytes(base.plan.device)
    early = state.global_step < job.arguments.max_steps
    if early and reporter.stopped:
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
    trained = TrainedRun(run, config, load_irm(run.path, base.plan.device), base.fingerprint)
    trained.base = base  # it is loaded already
    return trained


def _rows_and_fit(job: _Job, free: int) -> tuple[int, Fit | None]:
    """In how many rows a step goes through, and the peaks then; None for a base whose sizes are not told as Llama's are."""
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
        step = largest_step(lengths, validation, config, job.arguments.max_steps, rows)
        return predict(shape, config, step, plan.device, plan.dtype, config.optim)

    if config.batch == "auto":
        rows = fewest_rows(predicted, config.batch_size * rows, free)
    return rows, predicted(rows)


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
    if model.prefix.keep(samples, job.run.path) == "no room":
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
