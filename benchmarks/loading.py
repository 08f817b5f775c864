"""What a GGUF's matrices take until they are in NF4: by the libraries alone, and as irm-lite loads them, in turns.

python benchmarks/loading.py MODEL.gguf [--layers 1] [--rounds 3] [--dtype bfloat16] [--threads 1] [--json FILE]

MODEL.gguf is any model of a kind that irm-lite loads; Llama 2 7B's shape of random weights is made by llama2_7b_shape.py. By the
libraries: the package gguf dequantises a matrix, transformers undoes llama.cpp's layout, torch rounds, bitsandbytes quantises.
Each matrix goes through both ways, one after the other, in every other round the other way about; the bits are compared. The
ratio is of the processor's seconds, and of the wall's, which other work on the machine makes useless.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from bitsandbytes.functional import quantize_4bit
from rich.console import Console
from rich.table import Table

from irm_lite.base.sources.gguf_weights import GgufWeight, gguf_weights, skeleton
from irm_lite.core.files.atomic import write_text
from irm_lite.core.machine.four_bits import quick_four_bits
from irm_lite.core.machine.malloc import freed_memory_returned
from irm_lite.core.machine.quiet import quiet_libraries

Pair = tuple[torch.Tensor, torch.Tensor]  # packed values, each block's largest magnitude


def main(arguments: Sequence[str] | None = None) -> None:
    options = parsed(arguments)
    torch.set_num_threads(options.threads)
    with quiet_libraries():
        weights = gguf_weights(options.model, skeleton(options.model), getattr(torch, options.dtype))
    chosen = {name: weight for name, weight in weights.items() if of_first_blocks(name, weight, options.layers)}
    rows = {name: measured(weight, options) for name, weight in chosen.items()}  # type: ignore[arg-type]
    document = {
        "model": options.model.name,
        "dtype": options.dtype,
        "threads": options.threads,
        "rounds": options.rounds,
        "load_average": os.getloadavg()[0],
        "matrices": rows,
        "ratio": {clock: ratios(rows, clock) for clock in ("processor", "wall")},
    }
    table = Table("matrix", "shape", "ns a weight, libraries", "irm-lite", "ratio of processor seconds", "of wall seconds")
    for name, row in rows.items():
        each = [1e9 * statistics.median(row[way]["processor"]) / np.prod(row["shape"]) for way in ("libraries", "irm-lite")]
        shown = [f"{statistics.median(row['ratio'][clock]):.2f}" for clock in ("processor", "wall")]
        table.add_row(name, " x ".join(map(str, row["shape"])), *(f"{value:.2f}" for value in each), *shown)
    Console(width=140).print(table)
    for clock, found in document["ratio"].items():
        print(f"all of them, {clock} seconds: {found['median']:.2f} times as fast ({found['low']:.2f} to {found['high']:.2f})")
    if options.json:
        write_text(options.json, json.dumps(document, indent=2) + "\n")


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--layers", type=int, default=1, help="the matrices of so many blocks")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dtype", choices=("bfloat16", "float16", "float32"), default="bfloat16")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path)
    return parser.parse_args(arguments)


def of_first_blocks(name: str, weight: object, layers: int) -> bool:
    """Whether it is a matrix of a block, which is quantised."""
    number = next((int(part) for part in name.split(".") if part.isdecimal()), layers)
    return number < layers and isinstance(weight, GgufWeight) and len(weight.parts) == 1 and len(weight.parts[0].shape) == 2


def measured(weight: GgufWeight, options: argparse.Namespace) -> dict[str, Any]:
    """Seconds of each round by both ways, and their ratios. Raises AssertionError where the bits differ."""
    ways: dict[str, Callable[[], Pair]] = {
        "libraries": lambda: by_libraries(weight, getattr(torch, options.dtype)),
        "irm-lite": lambda: as_loaded(weight),
    }
    row: dict[str, Any] = {"shape": list(weight.shape)} | {way: {"processor": [], "wall": []} for way in ways}
    for number in range(options.rounds + 1):
        made = {}
        for way in ways if number % 2 else reversed(ways):
            with freed_memory_returned():
                processor, wall = time.process_time(), time.perf_counter()
                made[way] = ways[way]()
                seconds = {"processor": time.process_time() - processor, "wall": time.perf_counter() - wall}
            for clock, value in seconds.items():
                row[way][clock] += [value] if number else []  # the first round warms up
        assert all(torch.equal(one, other) for one, other in zip(*made.values(), strict=True)), "the bits differ"
    row["ratio"] = {
        clock: [a / b for a, b in zip(row["libraries"][clock], row["irm-lite"][clock], strict=True)]
        for clock in ("processor", "wall")
    }
    return row


def by_libraries(weight: GgufWeight, dtype: torch.dtype) -> Pair:
    (part,) = weight.parts
    stored = np.fromfile(weight.path, np.uint8, part.n_bytes, offset=part.offset).reshape(part.shape[1], -1)
    dense = gguf.dequantize(stored, gguf.GGMLQuantizationType(part.type))
    laid_out = np.ascontiguousarray(weight.processor.process(dense, part.name).weights)
    packed, state = quantize_4bit(torch.from_numpy(laid_out).to(dtype), quant_type="nf4", blocksize=64)
    return packed, state.absmax


def as_loaded(weight: GgufWeight) -> Pair:
    with quick_four_bits():
        packed, state = quantize_4bit(weight[...].to(weight.dtype), quant_type="nf4", blocksize=64)
    return packed, state.absmax


def ratios(rows: dict[str, dict[str, Any]], clock: str) -> dict[str, float]:
    """Of all matrices of a round together: the median, the least and the largest."""
    sums = {way: np.sum([row[way][clock] for row in rows.values()], axis=0) for way in ("libraries", "irm-lite")}
    found = sums["libraries"] / sums["irm-lite"]
    return {"median": float(np.median(found)), "low": float(found.min()), "high": float(found.max())}


if __name__ == "__main__":
    main()
