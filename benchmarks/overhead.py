"""The share of a training step that is not the frozen base's forward and backward.

python benchmarks/overhead.py [--model demo | --shape llama-2-7b] [--irm lite] [--device auto] [--steps 4] [--rounds 3]
                              [--json FILE]

On the same packed rows, in turns: whole steps of a training, and the base alone, with a gradient down to the first block that the
IRM reaches and the loss at the answers; medians over rounds, the first is a warm-up. What is left is the IRM and its optimiser.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from contenders.random_base import random_base
from contenders.task import BATCH_SIZE, MAX_LENGTH, SEED, parse_shape
from irm_lite.base.forward import answers_of, row_of, run_base
from irm_lite.base.heads import head_of
from irm_lite.base.load import Base, load_base
from irm_lite.core.files.atomic import write_text
from irm_lite.core.machine.malloc import freed_memory_kept
from irm_lite.data.dataset import load_dataset
from irm_lite.data.encoding import Sample, encode_all
from irm_lite.steering.injection import inject
from irm_lite.steering.irm import build_irm
from irm_lite.training.step.answer_loss import answer_nll
from irm_lite.training.step.frozen_prefix import FrozenPrefix, blocks_from
from irm_lite.training.step.injected_model import InjectedModel, compute_dtype


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--shape", type=parse_shape, help="llama-2-7b or LAYERSxHIDDEN, with random weights")
    parser.add_argument("--irm", choices=("lite", "static", "paper"), default="lite")
    parser.add_argument("--device", choices=("auto", "cuda", "mps", "cpu"), default="auto")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    base = (
        random_base(options.shape, "nf4", "auto", options.device)
        if options.shape
        else load_base(options.model, device=options.device)
    )
    samples, _ = encode_all(base.tokenizer, load_dataset("anger").train, MAX_LENGTH)
    rows = [samples[at * BATCH_SIZE : (at + 1) * BATCH_SIZE] for at in range(options.steps)]
    torch.manual_seed(SEED)
    layers = tuple(range(base.n_layers)) if options.irm == "paper" else tuple(range(1, base.n_layers))
    irm = build_irm(options.irm, base.hidden_size, layers, "attn" if options.irm == "paper" else "block").to(base.plan.device)
    times: dict[str, list[float]] = {"whole": [], "base": []}
    with freed_memory_kept(), inject(base.model, irm) as injection:
        injection.compute_dtype = compute_dtype(base, irm)
        model = InjectedModel(base, injection, dependence=float(options.irm == "lite"))
        optimiser = torch.optim.AdamW(irm.parameters())
        for number in range(options.rounds + 1):
            whole = timed(base, lambda: [step(model, optimiser, row) for row in rows])
            with injection.paused():
                alone = timed(base, lambda: [passes(base, model.prefix, row) for row in rows])
            times["whole"] += [whole] if number else []
            times["base"] += [alone] if number else []
    shares = [1 - alone / whole for whole, alone in zip(times["whole"], times["base"], strict=True)]
    print(
        f"{options.irm}: a step {statistics.median(times['whole']) / len(rows):.3f} s, the base alone "
        f"{statistics.median(times['base']) / len(rows):.3f} s; outside it {statistics.median(shares):.1%} "
        f"({min(shares):.1%} to {max(shares):.1%})"
    )
    if options.json:
        write_text(options.json, json.dumps({"irm": options.irm, "seconds": times, "shares": shares}, indent=2) + "\n")


def step(model: InjectedModel, optimiser: torch.optim.Optimizer, row: Sequence[Sample]) -> None:
    """As the Trainer takes it: forward, backward, clipping, optimiser."""
    with model.stepping():
        model(row).backward()
    torch.nn.utils.clip_grad_norm_(model.irm.parameters(), 1.0)
    optimiser.step()
    optimiser.zero_grad()


def passes(base: Base, prefix: FrozenPrefix, samples: Sequence[Sample]) -> None:
    """The base's own forward, and its backward down to the first block that the IRM reaches."""
    row = row_of(base.model, samples)
    states = prefix.states(samples, row) if prefix.first else {}
    stream = states.get("stream", base.model.get_input_embeddings()(row["input_ids"].to(base.model.device)))
    with blocks_from(base.model, prefix.first):
        hidden = answers_of(run_base(base.model, row, stream.detach().requires_grad_()), row)
    answer_nll(head_of(base.model), hidden, row["labels"], row["weights"]).backward()


def timed(base: Base, work: Callable[[], object]) -> float:
    """Seconds, the GPU's included."""
    began = time.perf_counter()
    work()
    if base.plan.device == "cuda":
        torch.cuda.synchronize()
    elif base.plan.device == "mps":
        torch.mps.synchronize()
    return time.perf_counter() - began


if __name__ == "__main__":
    sys.exit(main())
