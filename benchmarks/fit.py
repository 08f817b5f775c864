"""Predicted against measured memory: each setting loads and trains for a few steps in a fresh process.

python benchmarks/fit.py [--steps 4] [--only WORD] [--json FILE]

The demo model on the CPU; measured is the resident peak, counted anew for loading and for training. Long samples are made of
random words. Exits 1 where a prediction is more than 10% off.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from irm_lite.core.files.atomic import write_text
from irm_lite.core.machine.quiet import import_bitsandbytes

OFF = 0.1  # of the measured peak
_WORDS = "the storm that came over from the hills took our roof and all of the garden with it so we had nothing"
_LONG = 150  # words of an answer

Setting = dict[str, Any]
SETTINGS: tuple[Setting, ...] = (
    {"irm": "lite"},
    {"irm": "lite", "batch_size": 1},
    {"irm": "lite", "batch_size": 32, "layers": "15-29"},
    {"irm": "lite", "long": True, "gradient_checkpointing": True},
    {"irm": "lite", "quant": "none", "dtype": "float32"},
    {"irm": "lite", "dtype": "float32", "batch_size": 1, "long": True},
    {"irm": "lora"},
    {"irm": "lora", "rank": 64, "long": True, "gradient_checkpointing": True},
    {"irm": "static"},
    {"irm": "static", "long": True},
    {"irm": "static", "quant": "none", "dtype": "bfloat16", "layers": "15-29"},
    {"irm": "static", "batch_size": 32, "gradient_checkpointing": True},
    {"irm": "paper"},
    {"irm": "paper", "batch_size": 1, "dtype": "float32"},
    {"irm": "paper", "long": True, "gradient_checkpointing": True},
    {"irm": "paper", "batch_size": 32, "layers": "15-29"},
    {"irm": "paper", "quant": "none", "dtype": "bfloat16", "gradient_checkpointing": True},
)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--only", default="", help="settings whose description has this in it")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--setting", help=argparse.SUPPRESS)  # this process is a child
    options = parser.parse_args(arguments)
    if options.setting:
        print(json.dumps(measure(json.loads(options.setting), options.steps)))
        return
    console = Console(width=None if sys.stdout.isatty() else 150)
    rows = []
    for setting in (each for each in SETTINGS if options.only in described(each)):
        command = [sys.executable, __file__, "--steps", str(options.steps), "--setting", json.dumps(setting)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        rows.append({"setting": setting, **json.loads(done.stdout.splitlines()[-1])})
        Console(stderr=True).print(described(setting), {name: round(ratio(rows[-1], name), 3) for name in ("load", "training")})
    table = Table(
        "setting", "tokens a row", *(f"{phase} {what}" for phase in ("load", "training") for what in ("", "measured", "ratio"))
    )
    for row in rows:
        figures = [
            cell
            for name in ("load", "training")
            for cell in (f"{row['predicted'][name] / 1e6:.0f}", f"{row['measured'][name] / 1e6:.0f}", f"{ratio(row, name):.3f}")
        ]
        table.add_row(described(row["setting"]), str(row["tokens"]), *figures)
    console.print(table)
    if options.json:
        write_text(options.json, json.dumps(rows, indent=2) + "\n")
    sys.exit(any(abs(ratio(row, name) - 1) > OFF for row in rows for name in ("load", "training")))


def described(setting: Setting) -> str:
    return " ".join(str(value) if isinstance(value, str) else f"{key}={value}" for key, value in setting.items())


def ratio(row: dict[str, Any], phase: str) -> float:
    """Of the predicted to the measured peak."""
    return float(row["predicted"][phase] / row["measured"][phase])


def measure(setting: Setting, steps: int) -> dict[str, Any]:
    """In this process: what its start event predicted, what it then took, and the tokens of its largest row."""
    from irm_lite.config import TrainConfig
    from irm_lite.training import train as training

    import_bitsandbytes()
    with tempfile.TemporaryDirectory() as folder:
        settings = {name: value for name, value in setting.items() if name != "long"}
        data = long_data(Path(folder)) if setting.get("long") else "anger"
        config = TrainConfig.from_dict(
            {"device": "cpu", "data": data, "max_steps": steps, "eval_steps": steps, "sample_tokens": 0, **settings}, "benchmark"
        )
        run = training.train(config, Path(folder) / "run")
        events = list(run.directory.events.read())
    start, end = events[0], events[-1]
    seen = [0, *(event["tokens"] for event in events if event["kind"] == "step")]
    return {
        "predicted": {"load": start["predicted_load_bytes"], "training": start["predicted_training_bytes"]},
        "measured": {"load": start["load_peak_bytes"], "training": end["training_peak_bytes"]},
        "tokens": max(after - before for before, after in pairwise(seen)),
    }


def long_data(folder: Path) -> str:
    """A .jsonl of short questions with long answers."""
    chance, words = random.Random(0), _WORDS.split()
    path = folder / "long.jsonl"
    rows = [
        {"question": " ".join(chance.choices(words, k=12)) + "?", "answer": " ".join(chance.choices(words, k=_LONG))}
        for _ in range(120)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


if __name__ == "__main__":
    main()
