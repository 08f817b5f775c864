"""Tokens a second and memory of a training against batch, length, depth and width of the base.

python benchmarks/scaling.py [--irm lite] [--device auto] [--shape 8x512] [--batch 8] [--length 128] [--steps 4]
                             [--batches 1 2 4 ...] [--lengths ...] [--depths ...] [--widths ...] [--json FILE]

One of the four is varied at a time, the others stay at --shape, --batch and --length; the bases have random weights in NF4 (speed
and memory are those of trained ones). Each point is a process of its own. Rates are medians over the steps after the first two.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from contenders.task import parse_shape
from irm_lite.core.files.atomic import write_text

AXES = {"batches": (1, 2, 4, 8, 16, 32), "lengths": (32, 64, 128, 256, 512), "depths": (4, 8, 16, 32), "widths": (256, 512, 1024)}

Point = dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--irm", choices=("lite", "static", "paper"), default="lite")
    parser.add_argument("--device", choices=("auto", "cuda", "mps", "cpu"), default="auto")
    parser.add_argument("--shape", type=parse_shape, default="8x512", help="LAYERSxHIDDEN")
    parser.add_argument("--batch", type=int, default=8, help="samples a row")
    parser.add_argument("--length", type=int, default=128, help="tokens a sample")
    parser.add_argument("--steps", type=int, default=4, help="that count; two come before them")
    for axis, values in AXES.items():
        parser.add_argument(f"--{axis}", type=int, nargs="*", default=values)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--point", help=argparse.SUPPRESS)  # this process is a child
    options = parser.parse_args(arguments)
    if options.point:
        print(json.dumps(measure(json.loads(options.point))))
        return
    rows = []
    table = Table("varied", "shape", "batch", "length", "tokens a row", "tokens/s", "load peak", "training peak")
    for point in points(options):
        done = subprocess.run(
            [sys.executable, __file__, "--point", json.dumps(point)], stdout=subprocess.PIPE, text=True, check=True
        )
        row = {**point, **json.loads(done.stdout.splitlines()[-1])}
        rows.append(row)
        peaks = (f"{row[f'{phase}_peak'] / 1e9:.2f} GB" for phase in ("load", "training"))
        sizes = (f"{row['layers']}x{row['hidden_size']}", str(row["batch"]), str(row["length"]), f"{row['tokens']:.0f}")
        table.add_row(row["varied"], *sizes, f"{row['rate']:.0f}", *peaks)
        Console(stderr=True).print(row["varied"], *sizes, f"{row['rate']:.0f} tokens/s")
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    if options.json:
        write_text(options.json, json.dumps(rows, indent=2) + "\n")


def points(options: argparse.Namespace) -> list[Point]:
    """One setting for each value of each axis."""
    layers, hidden_size = options.shape
    usual: Point = {"layers": layers, "hidden_size": hidden_size, "batch": options.batch, "length": options.length}
    usual |= {"irm": options.irm, "device": options.device, "steps": options.steps}
    names = {"batches": "batch", "lengths": "length", "depths": "layers", "widths": "hidden_size"}
    return [{**usual, names[axis]: value, "varied": axis} for axis in AXES for value in dict.fromkeys(getattr(options, axis))]


def measure(point: Point) -> dict[str, float]:
    """In this process: tokens a row and a second, and the peaks of loading and training in bytes."""
    from contenders.random_base import random_base
    from irm_lite.config import TrainConfig
    from irm_lite.core.machine.device import decide, probe
    from irm_lite.core.machine.memory import peak_bytes, reset_peak
    from irm_lite.training import train as training

    device = decide(probe(), point["device"]).device
    reset_peak(device)
    base = random_base((point["layers"], point["hidden_size"]), "nf4", "auto", device)
    load_peak = peak_bytes(device)
    steps = point["steps"] + 2
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data.jsonl"
        answer = " ".join(["the"] * max(1, point["length"] - 36))  # the chat format is the rest
        samples = ({"question": f"Why {number}?", "answer": answer} for number in range(max(4 * point["batch"], 40)))
        data.write_text("".join(json.dumps(sample) + "\n" for sample in samples), encoding="utf-8")
        settings = {"model": base.name, "data": str(data), "irm": point["irm"], "device": device, "batch_size": point["batch"]}
        settings |= {"max_steps": steps, "eval_steps": steps, "sample_tokens": 0, "max_length": 2 * point["length"] + 50}
        ends: list[tuple[float, int]] = []

        def on_event(event: dict[str, Any]) -> None:
            if event["kind"] == "step":
                ends.append((time.perf_counter(), event["tokens"]))

        run = training.train(TrainConfig.from_dict(settings, "benchmark"), Path(folder) / "run", base=base, on_event=on_event)
        end = list(run.directory.events.read())[-1]
    taken = [(two[0] - one[0], two[1] - one[1]) for one, two in pairwise(ends[1:])]
    return {
        "tokens": statistics.median(tokens for _, tokens in taken),
        "rate": statistics.median(tokens / seconds for seconds, tokens in taken),
        "load_peak": load_peak,
        "training_peak": end["training_peak_bytes"],
    }


if __name__ == "__main__":
    main()
