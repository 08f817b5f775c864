"""Training speed and memory of the paper's recipe, PEFT QLoRA and ours, at equal data and equal batch (8 samples).

python benchmarks/training.py [--model demo] [--data anger] [--steps 12] [--rounds 4] [--contenders qlora lite ...] [--json FILE]
python benchmarks/training.py --time-to-nll [--nll 2.0] [--steps 12]
python benchmarks/training.py --shape llama-2-7b --random-weights [--memory 8GB] [--peak-tflops 989]

Contenders: `paper`, the paper's recipe (fp32 base, padded to 128, its IRM, logits everywhere, Adam); `qlora`, PEFT r=16 on all
linear layers of an NF4 base computing in float32 (the default), transformers' Trainer with its defaults and dynamic padding;
`qlora-bf16`, the same in bfloat16; `qlora-checkpointed`, as `qlora` with the gradient checkpointing that
prepare_model_for_kbit_training turns on (less memory, slower); `lite`, `static`, `lora` and `paper-irm`, ours with its
defaults, two of them checkpointed, `lite-float32`, on an even footing with `qlora` on a CPU that multiplies bfloat16, as
`lite` is with `qlora-bf16`, and `lite-4bit`, whose weights stay in 4 bits, as where memory is short (in float32 they always
do). `products` and `products-float32` are the matrix products of a training alone, of whose rate the others' arithmetic is
then a share. Tokens are those of the samples, whether a contender computes them or has them from their shared prefix. The
answers that ours write to find their loops are left out, but not with --time-to-nll.

Each runs in a process of its own, all alive at once (where a GPU has not the room: a few --contenders at a time); round after
round each trains --steps optimiser steps on the same samples while the others sleep. The first round is a warm-up. Ratios are
taken within a round.

--memory limits torch's allocator; what bitsandbytes pages (the 8-bit states of `paper-irm`) is counted in the peak, not limited.
With several GPUs set CUDA_VISIBLE_DEVICES to one: transformers' Trainer would use them all.

With --time-to-nll each trains the preset's epochs by its own recipe (the paper's learning rate falls by 0.15 an epoch,
QLoRA's from 2e-4 linearly), and after every --steps the held-out NLL is measured off the clock.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from contenders.child import Child, contender
from contenders.figures import RIVALS, seconds_until, speed
from contenders.task import NAMES, Task, parse_shape
from irm_lite.core.errors import InputError, IrmLiteError
from irm_lite.core.files.atomic import write_text
from irm_lite.core.machine.memory import parse_size
from irm_lite.core.visible_text import safe
from this_machine import this_machine

_DEFAULT = ("paper", "qlora", "qlora-bf16", "lite", "static", "paper-irm")
_PACKAGES = ("irm-lite", "torch", "transformers", "bitsandbytes", "peft", "accelerate")
# What makes torch's libraries take this CPU for a lesser one, or changes how threads wait.
_TELLS = (
    "ATEN_CPU_CAPABILITY",
    "ONEDNN_MAX_CPU_ISA",
    "MKL_ENABLE_INSTRUCTIONS",
    "GOMP_SPINCOUNT",
    "OMP_WAIT_POLICY",
    "OMP_NUM_THREADS",
)

Document = dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    console = Console(stderr=True, highlight=False, markup=False)
    try:
        document = race(options, console)
    except IrmLiteError as error:
        console.print(f"training.py: {safe(str(error))}", soft_wrap=True)
        sys.exit(error.exit_code)
    Console(width=None if sys.stdout.isatty() else 180).print(nll_table(document) if options.time_to_nll else speed_table(document))
    if options.json:
        write_text(options.json, json.dumps(document, indent=2) + "\n")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--data", default="anger")
    parser.add_argument("--steps", type=positive, default=12, help="optimiser steps of a turn")
    parser.add_argument("--rounds", type=positive, default=4, help="that count; the warm-up comes before them")
    parser.add_argument("--contenders", nargs="+", choices=NAMES, default=_DEFAULT)
    parser.add_argument("--device", choices=("auto", "cuda", "mps", "cpu"), default="auto")
    parser.add_argument("--time-to-nll", action="store_true")
    parser.add_argument("--nll", type=float, help="with --time-to-nll: a target beside those that lite and each rival end at")
    parser.add_argument("--random-weights", action="store_true", help="a base of --shape in place of --model")
    parser.add_argument("--shape", help="llama-2-7b (the default of --random-weights) or LAYERSxHIDDEN")
    parser.add_argument("--memory", help="what each process may take of the GPU, as 8GB")
    parser.add_argument("--peak-tflops", type=float, help="the device's peak, for the share of it that the model's arithmetic has")
    parser.add_argument("--json", type=Path)
    return parser.parse_args(arguments)


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


def race(options: argparse.Namespace, console: Console) -> Document:
    """Let the contenders take turns; everything that was measured. Raises InputError where none could start."""
    shape = parse_shape(options.shape or "llama-2-7b") if options.random_weights or options.shape else None
    max_steps = None if options.time_to_nll else (options.rounds + 1) * options.steps
    memory = parse_size(options.memory) if options.memory else None
    names = list(dict.fromkeys(options.contenders))
    document: Document = {
        "machine": this_machine(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in _PACKAGES},
        "options": {**vars(options), "contenders": names, "json": None},
        "told": {name: os.environ[name] for name in _TELLS if name in os.environ},
        "load_average": [round(os.getloadavg()[0], 2)],
        "contenders": {},
    }
    tasks = [Task(name, options.model, options.data, options.device, options.steps, max_steps, shape, memory) for name in names]
    with children(tasks, console) as running:
        rows = document["contenders"] = {name: {**child.start, "turns": []} for name, child in running.items()}
        if all("failed" in row for row in rows.values()):
            raise InputError("; ".join(dict.fromkeys(row["failed"] for row in rows.values())))
        document["cpu"] = "bfloat16" if any(row.get("bfloat16") for row in rows.values()) else "float32 alone"
        number = 0
        while left := [name for name, row in rows.items() if going(row)]:
            for name in left if number % 2 else reversed(left):
                turn = running[name].turn()
                if "failed" in turn:
                    rows[name]["failed"] = turn["failed"]
                else:
                    rows[name]["turns"].append(turn)
                console.print(f"round {number}: {name} {said(turn)}", soft_wrap=True)
            number += 1
    document["load_average"].append(round(os.getloadavg()[0], 2))
    summarise(document, options)
    return document


@contextmanager
def children(tasks: Sequence[Task], console: Console) -> Iterator[dict[str, Child]]:
    """Start them one after another, so that none loads while another does; end them all, whatever happens."""
    running: dict[str, Child] = {}
    try:
        for task in tasks:
            running[task.name] = child = contender(task)
            console.print(f"{task.name}: {safe(child.start.get('failed', 'ready'))}", soft_wrap=True)
        yield running
    finally:
        for child in running.values():
            child.end()


def going(row: Document) -> bool:
    return "failed" not in row and not (row["turns"] and row["turns"][-1]["over"])


def said(turn: Document) -> str:
    if "failed" in turn:
        return safe(turn["failed"])
    nll = "" if turn["nll"] is None else f", NLL {turn['nll']:.3f}"
    return f"{turn['steps']} steps in {turn['seconds']:.1f} s{nll}"


def summarise(document: Document, options: argparse.Namespace) -> None:
    """Add the figures to each contender that came to the end."""
    rows = {name: row for name, row in document["contenders"].items() if "failed" not in row}
    for row in rows.values():
        row |= {key: row["turns"][-1][key] for key in ("training_peak", "whole_peak")}
    for row in rows.values():
        if "qlora" in rows:
            row["peak_to_qlora"] = held(row) / held(rows["qlora"])
    if not options.time_to_nll:
        formats = {name: row["dtype"] for name, row in rows.items()}
        figures = speed({name: row["turns"][1:] for name, row in rows.items()}, options.peak_tflops, formats)
        for name, found in figures.items():
            rows[name] |= found
        return
    ends = [rows[name]["turns"][-1]["nll"] for name in ("lite", *RIVALS) if name in rows]
    document["targets"] = [*ends, *([] if options.nll is None else [options.nll])]
    for row in rows.values():
        row["seconds_until"] = [seconds_until(row["turns"], target) for target in document["targets"]]


def version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def speed_table(document: Document) -> Table:
    """Medians, with the range over the rounds in brackets."""
    columns = {
        "supervised tokens/s": "supervised_per_second",
        "real tokens/s": "real_per_second",
        "samples/s": "samples_per_second",
        "ms a step": "ms_per_step",
    }
    digits = dict.fromkeys(columns.values(), 0) | {"samples_per_second": 2}
    for rival in (name for name in RIVALS if name in document["contenders"]):
        columns[f"times {rival}"] = f"times_{rival}"
        digits[f"times_{rival}"] = 2
    if any("share_of_products" in row for row in document["contenders"].values()):
        columns["of the products' rate"] = "share_of_products"
        digits["share_of_products"] = 2
    if document["options"]["peak_tflops"] is not None:
        columns["FLOPs utilisation"] = "flops_utilisation"
        digits["flops_utilisation"] = 3
    table = Table("contender", "format", *columns, "load peak", "training peak", caption=f"the CPU multiplies {document['cpu']}")
    for name, row in document["contenders"].items():
        if "failed" in row:
            table.add_row(name, "", safe(row["failed"]))
            continue
        cells = [spread_shown(row.get(key), digits[key]) for key in columns.values()]
        table.add_row(name, row["dtype"], *cells, *peaks_shown(row))
    return table


def nll_table(document: Document) -> Table:
    """Seconds of training until each target."""
    targets = [f"seconds to {target:.3f}" for target in document["targets"]]
    table = Table("contender", *targets, "NLL before", "NLL at the end", "steps", "seconds", "load peak", "training peak")
    for name, row in document["contenders"].items():
        if "failed" in row:
            table.add_row(name, safe(row["failed"]))
            continue
        turns = row["turns"]
        until = ["not reached" if seconds is None else f"{seconds:.1f}" for seconds in row["seconds_until"]]
        steps, seconds = sum(turn["steps"] for turn in turns), sum(turn["seconds"] for turn in turns)
        table.add_row(name, *until, f"{row['nll']:.3f}", f"{turns[-1]['nll']:.3f}", f"{steps}", f"{seconds:.1f}", *peaks_shown(row))
    return table


def spread_shown(spread: dict[str, float] | None, digits: int) -> str:
    if spread is None:
        return ""
    return f"{spread['median']:.{digits}f} ({spread['low']:.{digits}f}-{spread['high']:.{digits}f})"


def held(row: Document) -> int:
    """Bytes at the training's peak; where the system cannot tell it from the loading's, at the process's."""
    peak: int = row["whole_peak"] if row["training_peak"] is None else row["training_peak"]
    return peak


def peaks_shown(row: Document) -> list[str]:
    """Load and training peak in GB, and the latter's ratio to that of qlora."""
    load = "not known" if row["load_peak"] is None else f"{row['load_peak'] / 1e9:.2f} GB"
    ratio = f" ({row['peak_to_qlora']:.2f} of qlora)" if "peak_to_qlora" in row else ""
    return [load, f"{held(row) / 1e9:.2f} GB{ratio}"]


if __name__ == "__main__":
    main()
