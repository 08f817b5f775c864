"""Recording's pace and memory: the statistics of many tokens of a large IRM, fed from memory.

python benchmarks/recording.py [--tokens 100000] [--layers 32] [--hidden-size 4096] [--json FILE]

The tokens are one batch of random outputs, fed again and again with changing signs, so that the true statistics are known:
those of the batch and its negative.
"""

import argparse
import json
import resource
import sys
import time
from pathlib import Path

import numpy as np
import torch

from irm_lite.analysis.recordings.running_statistics import Running

BATCH = 50


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=100_000)
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--hidden-size", type=int, default=4096)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    batch = torch.randn(BATCH, options.layers, options.hidden_size, generator=torch.Generator().manual_seed(0))
    running = Running(options.layers, options.hidden_size)
    before, start = peak(), time.perf_counter()
    rounds = options.tokens // (2 * BATCH)
    for _ in range(rounds):
        running.add(batch)
        running.add(-batch)
    seconds = time.perf_counter() - start
    found, exact = running.statistics, batch.numpy().astype(np.float64)
    errors = {
        "mean": float(np.abs(found.mean).max()),
        "mean |v|": float(np.abs(found.mean_abs - np.abs(exact).mean(0)).max()),
        "standard deviation": float(np.abs(found.std - np.sqrt(np.square(exact).mean(0))).max()),
        "maximum": float(np.abs(found.maximum - np.abs(exact).max(0)).max()),
    }
    result = {
        "tokens": found.tokens,
        "shape": [options.layers, options.hidden_size],
        "tokens_per_second": found.tokens / seconds,
        "peak_mb": peak(),
        "peak_mb_before": before,
        "largest_errors": errors,
    }
    print(f"{found.tokens} tokens of {options.layers} x {options.hidden_size}: {result['tokens_per_second']:.0f} tokens/s")
    print(f"peak memory {result['peak_mb']:.0f} MB, of which {before:.0f} MB are Python, torch and the batch that is fed")
    print("largest error: " + ", ".join(f"{name} {value:.1e}" for name, value in errors.items()))
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


def peak() -> float:
    """Largest resident memory so far, in MB."""
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size / 1e6 if sys.platform == "darwin" else size / 1e3


if __name__ == "__main__":
    main()
