"""irm-lite models list | fit | inspect"""

import shlex
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from cyclopts import App, Parameter
from rich.table import Table

from irm_lite.base.presets import EMBEDDED, found_at, presets
from irm_lite.base.sources.shape import base_shape
from irm_lite.cli.output import Common, Output
from irm_lite.cli.verbs.models_inspect import inspect
from irm_lite.config import KINDS, Kind, TrainConfig
from irm_lite.core.errors import InputError
from irm_lite.core.machine.memory import parse_size
from irm_lite.core.visible_text import safe
from irm_lite.training.memory_fit import SAMPLE_TOKENS, Choice, choices, recommended

app = App(
    name="models",
    help="Base models: those known by name, what training on one takes, what their weights say of an index.",
    help_format="plaintext",
)
app.command(inspect)


@app.command(name="list")
def list_models(*, common: Common | None = None) -> None:
    """The presets, and where their weights are on this machine."""
    output = Output(common)
    table = Table()
    for title in ("name", "model", "parameters", "layers", "hidden", "licence", "on this machine"):
        number = title in ("parameters", "layers", "hidden")
        table.add_column(title, justify="right" if number else "left", no_wrap=number or title == "name", overflow="fold")
    models = []
    for preset in presets().values():
        place = found_at(preset)
        licence = preset.licence + (" (gated)" if preset.gated else "")
        size = f"{preset.parameters:.2f} B"
        table.add_row(
            preset.name,
            preset.title,
            size,
            str(preset.layers),
            str(preset.hidden_size),
            licence,
            str(place or f"no: {preset.hint}"),
        )
        models.append({**vars(preset), "found_at": None if place is None else str(place)})
    output.result({"models": models}, table)


Quant = Literal["nf4", "fp4", "int8", "none"]
Device = Literal["auto", "cuda", "mps", "cpu"]
Dtype = Literal["auto", "bfloat16", "float16", "float32"]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class FitFlags:
    """The training to make room for, and the room there is."""

    model: str = EMBEDDED
    """A preset, a Hugging Face folder, a .gguf file, or a hub id that is on this machine."""
    memory: str | None = None
    """The memory there is, such as 8GB [default: what is free on the device]."""
    kind: Annotated[tuple[Kind, ...], Parameter(consume_multiple=True, negative="")] = ("lite", "static", "paper")
    """Kinds of IRM."""
    length: int = SAMPLE_TOKENS
    """Tokens of a sample, prompt and answer."""
    layers: str = "all"
    """Injected layers, as for train."""
    quant: Quant = "nf4"
    """Quantisation of the base."""
    double_quant: bool = False
    """Quantise the quantisation constants too."""
    optim: str = "auto"
    """Optimiser, as for train."""
    dtype: Dtype = "auto"
    """Number format of the base's activations."""
    device: Device = "auto"
    """What it is to run on; with --memory it need not be in this machine."""


@app.command
def fit(*, flags: FitFlags | None = None, common: Common | None = None) -> None:
    """Peak memory of loading and of training, what fits, and the settings to use; nothing is loaded."""
    output, flags = Output(common), flags or FitFlags()
    if not 1 <= flags.length <= 10**9:
        raise InputError(f"--length {str(flags.length)[:20]} makes no sense", "give 1 to 1000000000")
    if not flags.kind:
        raise InputError("--kind names no kind of IRM", f"give {', '.join(KINDS)}, or leave it out")
    shape = base_shape(flags.model)
    from irm_lite.core.machine.device import DeviceFacts, decide, probe
    from irm_lite.core.machine.memory import free_bytes
    from irm_lite.training.kept_share import kept_share, room

    elsewhere = DeviceFacts(cuda=True, cuda_capability=(8, 0), mps=True, mps_bf16=True, cpu_bf16=True, bitsandbytes=True)
    planned = flags.memory is not None and flags.device != "auto"
    plan = decide(elsewhere if planned else probe(), flags.device, flags.dtype, flags.quant)
    free = free_bytes(plan.device) if flags.memory is None else parse_size(flags.memory)
    same = ("model", "layers", "quant", "optim", "dtype", "device")
    settings: dict[str, Any] = {name: getattr(flags, name) for name in same}
    settings["double_quant"] = flags.double_quant and flags.quant in ("nf4", "fp4")
    plans = (flags.length, plan.device, plan.dtype, plan.optim, room(free))
    found = {each: choices(shape, TrainConfig(irm=each, **settings), *plans) for each in flags.kind}
    best = {each: recommended(options, free) for each, options in found.items()}
    commands = {each: _command(config) for each, config in best.items() if config is not None}
    document = {
        "model": flags.model,
        "device": plan.device,
        "memory_bytes": free,
        "length": flags.length,
        "process_measured_bytes": kept_share() if plan.device == "cpu" else None,
        "settings": [_row(option, free) for options in found.values() for option in options],
        "commands": commands,
    }
    shown = [*commands.values()] or ["nothing fits: take fewer --layers, a smaller model, or --quant nf4"]
    title = f"{safe(flags.model)} on {plan.device}, samples of {flags.length} tokens, {free / 1e9:.1f} GB"
    output.result(document, _peaks(found, free, title, plan.device), _parts(found, best), *shown)


def _row(option: Choice, free: int) -> dict[str, Any]:
    return {
        "irm": option.config.irm,
        "batch_size": option.config.batch_size,
        "gradient_checkpointing": option.config.gradient_checkpointing,
        "load_peak_bytes": option.fit.load_peak,
        "training_peak_bytes": option.fit.training_peak,
        "fits": option.fits(free),
        "load": option.fit.load,
        "training": option.fit.training,
    }


def _peaks(found: dict[Kind, list[Choice]], free: int, title: str, device: str) -> Table:
    """Batch by batch."""
    from irm_lite.training.kept_share import kept_share

    caption = "GB at the peak; what does not fit is marked with >"
    if device == "cuda":
        caption += "; tensors alone: CUDA itself takes about 0.5 GB beside them"
    elif device == "cpu" and kept_share() is None:
        caption += "; the process's own share is torch's CPU build's: no training has measured it here yet"
    table = Table(title=title, caption=caption)
    for column in ("IRM", "batch", "load", "training", "with --gradient-checkpointing"):
        table.add_column(column, justify="left" if column == "IRM" else "right")
    for kind, options in found.items():
        for plain, recomputing in zip(options[::2], options[1::2], strict=True):
            peaks = [plain.fit.load_peak, plain.fit.training_peak, recomputing.fit.training_peak]
            cells = [f"{peak / 1e9:.2f}" if peak <= free else f"> {peak / 1e9:.2f}" for peak in peaks]
            table.add_row(kind, str(plain.config.batch_size), *cells)
    return table


def _parts(found: dict[Kind, list[Choice]], best: dict[Kind, TrainConfig | None]) -> Table:
    """What takes the room while training with the settings of each kind's command, or of its smallest choice."""
    shown: dict[Kind, Choice] = {}
    for kind, options in found.items():
        config = best[kind]
        wanted = (config.batch_size, config.gradient_checkpointing) if config else (1, True)
        shown[kind] = next(each for each in options if (each.config.batch_size, each.config.gradient_checkpointing) == wanted)
    table = Table(title="training, MB")
    for column in ("part", *shown):
        table.add_column(column, justify="left" if column == "part" else "right")
    for part in dict.fromkeys(part for choice in shown.values() for part in choice.fit.training):
        table.add_row(part, *(f"{choice.fit.training.get(part, 0) / 1e6:.0f}" for choice in shown.values()))
    return table


def _command(config: TrainConfig) -> str:
    """The flags that are not the defaults, and those that a preset may set otherwise."""
    always = ("model", "irm", "batch_size", "gradient_accumulation_steps")
    default = TrainConfig()
    names = [
        *always,
        *(
            name
            for name in ("layers", "quant", "double_quant", "optim", "dtype", "device")
            if getattr(config, name) != getattr(default, name)
        ),
    ]
    values = {name: getattr(config, name) for name in names}
    flags = [
        f"--{name.replace('_', '-')}" + ("" if value is True else f" {shlex.quote(str(value))}") for name, value in values.items()
    ]
    recompute = "--gradient-checkpointing" if config.gradient_checkpointing else "--no-gradient-checkpointing"
    return " ".join(["irm-lite train", *flags, recompute])
