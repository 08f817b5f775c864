"""What it gains not to compute twice: tokens a second of a training with it and without, and whether the losses agree.

python benchmarks/prefix.py [--of frozen|shared] [--model demo] [--data anger] [--irm lite] [--epochs 5] [--rounds 3] [--json FILE]

`frozen`: the states below the IRM's first layer are kept from the first epoch on. `shared`: what a step's samples begin with is
computed once for all of them. Trainings take turns, with and without; a ratio is of neighbours, over epochs 2 and on. Losses are
compared step by step, of `shared` the first; of the first step the gradient's norm, too. No price on loops and phrases, which other
texts are written for. Exits 1 where the median ratio or a loss misses its goal.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

from irm_lite.base import forward
from irm_lite.base.load import Base, load_base
from irm_lite.config import TrainConfig
from irm_lite.core.files.atomic import write_text
from irm_lite.training import train as training

GOALS = {"frozen": {"ratio": 1.5, "apart": 1e-5}, "shared": {"ratio": 1.3, "apart": 1e-6}}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--of", choices=tuple(GOALS), default="frozen")
    parser.add_argument("--model", default="demo")
    parser.add_argument("--data", default="anger")
    parser.add_argument("--layers", help="the IRM's [default: 15-29, of `shared` all]")
    parser.add_argument("--irm", default="lite")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    if options.epochs < 2 or options.rounds < 1:
        parser.error("give two --epochs or more, and a round or more")
    goals = GOALS[options.of]
    base = load_base(options.model, dtype=options.dtype)
    rounds = []
    for number in range(options.rounds):
        order = (True, False) if number % 2 else (False, True)
        timed = {}
        for kept in order:
            with without_shared_prefix(options.of == "shared" and not kept):
                timed[kept] = epochs(base, options, kept)
        kept, plain = timed[True], timed[False]
        steps = 1 if options.of == "shared" else None  # sums in another order: the first loss tells, later ones have grown apart
        apart = max(abs(a - b) for a, b in zip(kept["losses"][:steps], plain["losses"][:steps], strict=True))
        norms = [timed["gradient_norms"][0] for timed in (kept, plain)]
        gradient = abs(norms[0] / norms[1] - 1)
        ratio = statistics.mean(kept["rates"][1:]) / statistics.mean(plain["rates"][1:])
        rounds.append({"with": kept, "without": plain, "ratio": ratio, "apart": apart, "gradient": gradient})
        print(
            f"round {number + 1}: with {said(kept)}, without {said(plain)} tokens/s; ratio {ratio:.2f}; losses {apart:.1e} apart, "
            f"the first gradient's norm by {gradient:.1e} of it",
            flush=True,
        )
    ratio, apart = statistics.median(each["ratio"] for each in rounds), max(each["apart"] for each in rounds)
    print(
        f"ratio from epoch 2 on: {ratio:.2f} (goal {goals['ratio']}); losses at most {apart:.1e} apart (goal {goals['apart']:.0e})"
    )
    if options.json:
        write_text(options.json, json.dumps({"options": {**vars(options), "json": None}, "rounds": rounds}, indent=2) + "\n")
    sys.exit(ratio < goals["ratio"] or apart > goals["apart"])


def epochs(base: Base, options: argparse.Namespace, kept: bool) -> dict[str, Any]:
    """Tokens a second of each epoch, each step's loss and the norm of its gradient."""
    ends: list[tuple[float, int, float]] = []  # time, tokens seen, epochs done
    losses: list[float] = []
    norms: list[float] = []

    def on_event(event: dict[str, Any]) -> None:
        if event["kind"] == "eval" and not ends:
            ends.append((time.perf_counter(), 0, 0.0))
        elif event["kind"] == "step":
            losses.append(event["loss"])
            norms.append(event["grad_norm"])
            if event["epoch"] >= len(ends):
                ends.append((time.perf_counter(), event["tokens"], event["epoch"]))

    layers = options.layers or ("all" if options.of == "shared" else "15-29")
    settings = {"model": options.model, "data": options.data, "irm": options.irm, "layers": layers}
    settings |= {
        "loop_penalty": 0.0,
        "phrase_penalty": 0.0,
        "dtype": options.dtype,
        "num_train_epochs": float(options.epochs),
        "cache_prefix": kept or options.of == "shared",
        "sample_tokens": 0,
    }
    settings |= {"eval_steps": 10**6, "save_steps": 10**6, "early_stopping_patience": 0}
    with tempfile.TemporaryDirectory() as folder:
        training.train(TrainConfig.from_dict(settings, "benchmark"), Path(folder) / "run", base=base, on_event=on_event)
    rates = [(two[1] - one[1]) / (two[0] - one[0]) for one, two in pairwise(ends)]
    return {"rates": rates, "losses": losses, "gradient_norms": norms}


@contextmanager
def without_shared_prefix(wanted: bool) -> Iterator[None]:
    """Within, if wanted: each sample of a row has its own."""
    found = forward.shared_prefix
    if wanted:
        forward.shared_prefix = lambda samples: 0
    try:
        yield
    finally:
        forward.shared_prefix = found


def said(timed: dict[str, Any]) -> str:
    return "/".join(f"{rate:.0f}" for rate in timed["rates"])


if __name__ == "__main__":
    main()
