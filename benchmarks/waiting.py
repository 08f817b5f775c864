"""What it costs to wait as irm-lite does (in core/machine/ spinning.py and give_way.py, llamacpp/threads.py): alone, and beside a
process that keeps a core busy.

python benchmarks/waiting.py [--model demo] [--rounds 6] [--steps 2] [--json FILE]

Trains `lite` and writes text in llama.cpp, each in two processes: one waits as irm-lite has it, one as the OpenMP runtime does
by itself, in llama.cpp with all threads at any time. In turns, alone and beside the busy process; ratios are taken within a round.
Ours has a turn in each state before the one that counts: what it looks back on shall be of this state.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from contenders.child import Child, contender
from contenders.task import Task
from irm_lite.core.files.atomic import write_text
from irm_lite.core.machine.spinning import TRAINING, WRITING
from this_machine import this_machine

OURS, THEIRS = "irm-lite's", "runtime's own"
THEIR_TURNS = 300_000
SHORT, LONG = 32, 300  # tokens before what is written; beyond 256 llama.cpp keeps all threads (llamacpp/threads.py)
STATES = ("alone", "beside a busy process")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--steps", type=int, default=2, help="optimiser steps of a turn")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    os.environ.pop("OMP_WAIT_POLICY", None)
    rates: dict[str, dict[str, dict[str, list[float]]]] = {}
    works = {
        "training": (trainer, TRAINING),
        "llama.cpp": (partial(writer, prompt=SHORT), WRITING),
        "llama.cpp, a long text": (partial(writer, prompt=LONG), WRITING),
    }
    for work, (start, ours) in works.items():
        rates[work] = raced({OURS: start(options, ours), THEIRS: start(options, THEIR_TURNS)}, options.rounds, work)
    document = {"machine": this_machine(), "model": options.model, "tokens_per_second": rates, "ratios": ratios(rates)}
    print(table(document))
    if options.json:
        write_text(options.json, json.dumps(document, indent=2) + "\n")


def trainer(options: argparse.Namespace, turns: int) -> Child:
    steps = options.steps * (2 * len(STATES) * options.rounds + 1)
    return contender(Task("lite", options.model, "anger", "cpu", options.steps, steps), {"GOMP_SPINCOUNT": str(turns)})


def writer(options: argparse.Namespace, turns: int, prompt: int) -> Child:
    told = {"model": options.model, "prompt": prompt, "gives_way": turns != THEIR_TURNS}
    return Child("written_text", told, {"GOMP_SPINCOUNT": str(turns)})


def raced(running: dict[str, Child], rounds: int, work: str) -> dict[str, dict[str, list[float]]]:
    """Tokens a second, by how they wait and by state; the first turn of each is a warm-up."""
    found: dict[str, dict[str, list[float]]] = {how: {state: [] for state in STATES} for how in running}
    with ExitStack() as stack:
        for child in running.values():
            stack.callback(child.end)
            taken(child)
        for number in range(rounds):
            for state in STATES:
                with busy(state != STATES[0]):
                    for how in list(running)[:: 1 if number % 2 else -1]:
                        if how == OURS:
                            taken(running[how])
                        found[how][state].append(taken(running[how]))
            said = {how: [round(values[-1]) for values in states.values()] for how, states in found.items()}
            print(f"{work}, round {number + 1} of {rounds}: {said} tokens/s, load {os.getloadavg()[0]:.1f}", file=sys.stderr)
    return found


def taken(child: Child) -> float:
    """Tokens a second of its next turn. Exits with what it says where it failed."""
    turn = child.turn()
    if "failed" in turn:
        sys.exit(f"waiting.py: {child.start.get('failed', turn['failed'])}")
    return float(turn["real"] / turn["seconds"])


@contextmanager
def busy(wanted: bool) -> Iterator[None]:
    """Within: another process computes without end, if wanted."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if wanted else None
    try:
        yield
    finally:
        if process:
            process.kill()
            process.wait()


def ratios(rates: dict[str, dict[str, dict[str, list[float]]]]) -> dict[str, dict[str, list[float]]]:
    """To the runtime's own way alone, round by round: median, least and most."""
    found: dict[str, dict[str, list[float]]] = {}
    for work, by_how in rates.items():
        alone = by_how[THEIRS][STATES[0]]
        for how, states in by_how.items():
            for state, values in states.items():
                shares = [value / one for value, one in zip(values, alone, strict=True)]
                found.setdefault(work, {})[f"{how}, {state}"] = spread(shares)
        pairs = zip(by_how[OURS][STATES[1]], by_how[THEIRS][STATES[1]], strict=True)
        found[work][f"{OURS} to {THEIRS}, {STATES[1]}"] = spread([ours / theirs for ours, theirs in pairs])
    return found


def spread(values: list[float]) -> list[float]:
    return [statistics.median(values), min(values), max(values)]


def table(document: dict[str, Any]) -> str:
    rows = [f"{document['machine']}; ratio to the runtime's own way of waiting, alone, median [least, most]", ""]
    rows += ["| | | ratio |", "|---|---|---:|"]
    for work, named in document["ratios"].items():
        rows += [f"| {work} | {name} | {median:.2f} [{low:.2f}, {high:.2f}] |" for name, (median, low, high) in named.items()]
    return "\n".join(rows)


if __name__ == "__main__":
    main()
