"""What steering costs in llama.cpp: tokens a second against no vector, all contenders interleaved in one process.

python benchmarks/llamacpp_cost.py --irm runs/anger-lite [--irm runs/anger-paper] [--gguf demo] [--json FILE]
"""

import argparse
import json
import platform
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from irm_lite.base.fingerprint import fingerprint_gguf
from irm_lite.base.presets import find_gguf
from irm_lite.llamacpp import Model, Runtime
from irm_lite.runs.trained import load_run
from irm_lite.steering.control_vector import ControlVector
from irm_lite.vectors.bake import bake
from irm_lite.vectors.biases import gather

PROMPT, NEW = 256, 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--irm", action="append", type=Path, required=True, help="a run with an exported vector")
    parser.add_argument("--gguf", default="demo")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    gguf = find_gguf(options.gguf)
    runs = [load_run(path) for path in options.irm]
    vector = ControlVector.load(runs[0].directory.default_vector)
    tokens = [int(token) for token in np.random.default_rng(0).integers(1000, 40000, PROMPT)]
    with ExitStack() as stack:
        baked = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "baked.gguf"
        bake(gguf, gather([str(runs[0].directory.default_vector)], fingerprint_gguf(gguf), gguf.name), baked)
        model = stack.enter_context(Model(gguf))
        contenders = {name: stack.enter_context(Runtime(model, n_ctx=PROMPT + NEW)) for name in ("no vector", "control vector")}
        contenders["control vector"].set_vector(vector)
        contenders["baked"] = stack.enter_context(Runtime(baked, n_ctx=PROMPT + NEW))
        for run in runs:
            contenders[f"dynamic {run.irm.kind}"] = stack.enter_context(Runtime(model, irm=run.irm, n_ctx=PROMPT + NEW))
        rates: dict[str, dict[str, list[float]]] = {name: {"prompt": [], "generation": []} for name in contenders}
        order = list(contenders)
        for number in range(options.rounds + 1):
            for name in order if number % 2 else reversed(order):
                start = time.perf_counter()
                contenders[name].logits(tokens, [PROMPT - 1])
                middle = time.perf_counter()
                written = contenders[name].generate_tokens(tokens[:8], max_new_tokens=NEW)
                count = sum(1 for _ in written)
                end = time.perf_counter()
                if number:  # the first round warms up
                    rates[name]["prompt"].append(PROMPT / (middle - start))
                    rates[name]["generation"].append(count / (end - middle))
    table = {name: {phase: summary(rates, name, phase) for phase in ("prompt", "generation")} for name in contenders}
    print(f"{gguf.name}, {platform.machine()}, {options.rounds} rounds; ratio to no vector, median [quartiles]")
    print("| | generation tokens/s | ratio | prompt tokens/s | ratio |\n|---|---:|---:|---:|---:|")
    for name, row in table.items():
        cells = [
            f"{row[p]['rate']:.1f} | {row[p]['ratio']:.3f} [{row[p]['low']:.3f}, {row[p]['high']:.3f}]"
            for p in ("generation", "prompt")
        ]
        print(f"| {name} | {' | '.join(cells)} |")
    if options.json:
        options.json.write_text(json.dumps({"rounds": options.rounds, "rates": rates, "summary": table}, indent=2) + "\n")


def summary(rates: dict[str, dict[str, list[float]]], name: str, phase: str) -> dict[str, float]:
    """Median rate, and the ratios to the plain model of the same round."""
    ratios = np.array(rates[name][phase]) / np.array(rates["no vector"][phase])
    low, middle, high = np.percentile(ratios, (25, 50, 75))
    return {"rate": float(np.median(rates[name][phase])), "ratio": float(middle), "low": float(low), "high": float(high)}


if __name__ == "__main__":
    main()
