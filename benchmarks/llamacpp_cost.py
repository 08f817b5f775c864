"""What steering costs in llama.cpp: tokens a second against no vector, all contenders interleaved in one process.

python benchmarks/llamacpp_cost.py --irm runs/anger-lite [--irm runs/anger-paper] [--gguf demo] [--json FILE]
python benchmarks/llamacpp_cost.py --vector anger.gguf --adapter anger-adapter.gguf [--adapter rank-8.gguf] [--gguf demo]

The vector that the first run was exported to is a contender, too.
"""

import argparse
import json
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from irm_lite.base.fingerprint import fingerprint_gguf
from irm_lite.base.presets import find_gguf
from irm_lite.core.bootstrap import RESAMPLES, interval
from irm_lite.llamacpp import Model, Runtime
from irm_lite.llamacpp.adapters import LoadedAdapter
from irm_lite.runs.trained import load_run
from irm_lite.steering.control_vector import ControlVector
from irm_lite.vectors.bake import bake
from irm_lite.vectors.biases import gather
from this_machine import this_machine

PROMPT, NEW = 256, 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--irm", action="append", type=Path, default=[], help="a run with an exported vector")
    parser.add_argument("--vector", type=Path, help="a control vector [default: the first run's]")
    parser.add_argument("--adapter", action="append", type=Path, default=[], help="an adapter's .gguf")
    parser.add_argument("--gguf", default="demo")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--processor-time", action="store_true", help="by the time that the process had: on a busy machine")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if not options.irm and options.vector is None:
        parser.error("name a run with --irm, or a control vector with --vector")
    gguf = find_gguf(options.gguf)
    tokens = [int(token) for token in np.random.default_rng(0).integers(1000, 30_000, PROMPT)]
    with ExitStack() as stack:
        rates = measured(contenders(options, gguf, stack), tokens, options)
    table = {name: {phase: summary(rates, name, phase) for phase in ("prompt", "generation")} for name in rates}
    print(f"{gguf.name}, {this_machine()}, {options.rounds} rounds; ratio to no vector, median [95%]")
    print("| | generation tokens/s | ratio | prompt tokens/s | ratio |\n|---|---:|---:|---:|---:|")
    for name, row in table.items():
        cells = [
            f"{row[p]['rate']:.1f} | {row[p]['ratio']:.3f} [{row[p]['low']:.3f}, {row[p]['high']:.3f}]"
            for p in ("generation", "prompt")
        ]
        print(f"| {name} | {' | '.join(cells)} |")
    if options.json:
        document = {"machine": this_machine(), "model": gguf.name, "rounds": options.rounds, "rates": rates, "summary": table}
        options.json.write_text(json.dumps(document, indent=2) + "\n")


def contenders(options: argparse.Namespace, gguf: Path, stack: ExitStack) -> dict[str, Runtime]:
    """One context each, open until the stack ends."""
    runs = [load_run(path) for path in options.irm]
    source = options.vector or runs[0].directory.default_vector
    model = stack.enter_context(Model(gguf))

    def context(of: Model | Path = model, **what: object) -> Runtime:
        return stack.enter_context(Runtime(of, n_ctx=PROMPT + NEW, **what))  # type: ignore[arg-type]

    found = {"no vector": context(), "control vector": context()}
    found["control vector"].set_vector(ControlVector.load(source))
    for path in options.adapter:
        loaded = stack.enter_context(LoadedAdapter(model, path))
        rank = max(each.rank for each in loaded.adapter.factors.values())
        name = f"adapter of rank {rank} on {len(loaded.adapter.factors)} maps"
        found[name] = context()
        found[name].set_adapters([(loaded, 1.0)])
        stack.callback(found[name].set_adapters, [])  # before it is freed
    if options.irm:
        baked = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "baked.gguf"
        bake(gguf, gather([str(source)], fingerprint_gguf(gguf), gguf.name), baked)
        found["baked"] = context(baked)
    return found | {f"dynamic {run.irm.kind}": context(irm=run.irm) for run in runs}


def measured(runtimes: dict[str, Runtime], tokens: list[int], options: argparse.Namespace) -> dict[str, dict[str, list[float]]]:
    """Tokens a second of each round, by contender and phase; each round begins with the next of them."""
    rates: dict[str, dict[str, list[float]]] = {name: {"prompt": [], "generation": []} for name in runtimes}
    clock = time.process_time if options.processor_time else time.perf_counter
    order = list(runtimes)
    for number in range(options.rounds + 1):
        first = number % len(order)
        for name in order[first:] + order[:first]:
            start = clock()
            runtimes[name].logits(tokens, [PROMPT - 1])
            middle = clock()
            written = runtimes[name].generate_tokens(tokens[:8], max_new_tokens=NEW)
            count = sum(1 for _ in written)
            end = clock()
            if number:  # the first round warms up
                rates[name]["prompt"].append(PROMPT / (middle - start))
                rates[name]["generation"].append(count / (end - middle))
    return rates


def summary(rates: dict[str, dict[str, list[float]]], name: str, phase: str) -> dict[str, float]:
    """Median rate, and the median ratio to the plain model of the same round with its 95% interval over rounds."""
    ratios = np.array(rates[name][phase]) / np.array(rates["no vector"][phase])
    drawn = np.random.default_rng(0).integers(len(ratios), size=(RESAMPLES, len(ratios)))
    low, high = interval(np.median(ratios[drawn], axis=1))
    return {"rate": float(np.median(rates[name][phase])), "ratio": float(np.median(ratios)), "low": low, "high": high}


if __name__ == "__main__":
    main()
