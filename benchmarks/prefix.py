"""What keeping the frozen prefix gains: tokens a second with it and without, epoch by epoch, and whether the losses agree.

python benchmarks/prefix.py [--model demo] [--data anger] [--layers 15-29] [--irm lite] [--epochs 5] [--rounds 3] [--json FILE]

Trainings take turns, with and without; a ratio is of neighbours, over epochs 2 and on. Losses are compared step by step. Exits 1
where the median ratio is below 1.5 or a loss differs by more than 1e-5.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from irm_lite.base.load import Base, load_base
from irm_lite.config import TrainConfig
from irm_lite.core.files.atomic import write_text
from irm_lite.training import train as training

GOALS = {"ratio": 1.5, "apart": 1e-5}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--data", default="anger")
    parser.add_argument("--layers", default="15-29")
    parser.add_argument("--irm", default="lite")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    base = load_base(options.model, dtype=options.dtype)
    rounds = []
    for number in range(options.rounds):
        order = (True, False) if number % 2 else (False, True)
        timed = {kept: epochs(base, options, kept) for kept in order}
        kept, plain = timed[True], timed[False]
        apart = max(abs(a - b) for a, b in zip(kept["losses"], plain["losses"], strict=True))
        ratio = statistics.mean(kept["rates"][1:]) / statistics.mean(plain["rates"][1:])
        rounds.append({"with": kept, "without": plain, "ratio": ratio, "apart": apart})
        print(
            f"round {number + 1}: with {said(kept)}, without {said(plain)} tokens/s; ratio {ratio:.2f}; losses {apart:.1e} apart",
            flush=True,
        )
    ratio, apart = statistics.median(each["ratio"] for each in rounds), max(each["apart"] for each in rounds)
    print(
        f"ratio from epoch 2 on: {ratio:.2f} (goal {GOALS['ratio']}); losses at most {apart:.1e} apart (goal {GOALS['apart']:.0e})"
    )
    if options.json:
        write_text(options.json, json.dumps({"options": {**vars(options), "json": None}, "rounds": rounds}, indent=2) + "\n")
    sys.exit(ratio < GOALS["ratio"] or apart > GOALS["apart"])


def epochs(base: Base, options: argparse.Namespace, kept: bool) -> dict[str, Any]:
    """Tokens a second of each epoch, and each step's loss."""
    ends: list[tuple[float, int, float]] = []  # time, tokens seen, epochs done
    losses: list[float] = []

    def on_event(event: dict[str, Any]) -> None:
        if event["kind"] == "eval" and not ends:
            ends.append((time.perf_counter(), 0, 0.0))
        elif event["kind"] == "step":
            losses.append(event["loss"])
            if event["epoch"] >= len(ends):
                ends.append((time.perf_counter(), event["tokens"], event["epoch"]))

    settings = {"model": options.model, "data": options.data, "irm": options.irm, "layers": options.layers}
    settings |= {"dtype": options.dtype, "num_train_epochs": float(options.epochs), "cache_prefix": kept, "sample_tokens": 0}
    settings |= {"eval_steps": 10**6, "save_steps": 10**6, "early_stopping_patience": 0}
    with tempfile.TemporaryDirectory() as folder:
        training.train(TrainConfig.from_dict(settings, "benchmark"), Path(folder) / "run", base=base, on_event=on_event)
    rates = [(two[1] - one[1]) / (two[0] - one[0]) for one, two in pairwise(ends)]
    return {"rates": rates, "losses": losses}


def said(timed: dict[str, Any]) -> str:
    return "/".join(f"{rate:.0f}" for rate in timed["rates"])


if __name__ == "__main__":
    main()
