"""NLL of every shipped tone's held-out answers in llama.cpp, by the base and by the vector of each run given.

python benchmarks/tones.py runs/anger-lite runs/sadness-lite runs/joy-lite [--json FILE]
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from irm_lite.core.errors import InputError, IrmLiteError
from irm_lite.core.visible_text import safe
from irm_lite.data.dataset import load_dataset, tones
from irm_lite.data.encoding import encode_all
from irm_lite.llamacpp import Runtime
from irm_lite.llamacpp.likelihood import context_for, llamacpp_nll
from irm_lite.runs.directory import RunDirectory
from irm_lite.runs.trained import load_base_of
from irm_lite.steering.control_vector import ControlVector


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    try:
        table = measure(options.runs)
    except IrmLiteError as error:
        print(f"tones.py: {safe(str(error))}", file=sys.stderr)
        sys.exit(error.exit_code)
    steering = list(next(iter(table.values())))
    print("| answers in \\ steered by | " + " | ".join(steering) + " |")
    print("|---|" + "---:|" * len(steering))
    for tone, row in table.items():
        print(f"| {tone} | " + " | ".join(f"{row[name]:.3f}" for name in steering) + " |")
    if options.json:
        options.json.write_text(json.dumps(table, indent=2) + "\n")


def measure(paths: list[Path]) -> dict[str, dict[str, float]]:
    """NLL by the answers' tone, then by what steers."""
    runs = [RunDirectory(path) for path in paths]
    base = load_base_of(runs[0].config())
    if base.gguf_path is None:
        raise InputError(f"the base of {runs[0].path} is not a .gguf", "give runs that were trained on one")
    samples = {tone: encode_all(base.tokenizer, load_dataset(tone).test, 512)[0] for tone in tones()}
    steering: dict[str, ControlVector | None] = {"base": None}
    steering |= {run.config().data: ControlVector.load(run.default_vector) for run in runs}
    table: dict[str, dict[str, float]] = {tone: {} for tone in tones()}
    with Runtime(base.gguf_path, n_ctx=max(map(context_for, samples.values()))) as runtime:
        for name, vector in steering.items():
            runtime.set_vector(vector)
            for tone, held_out in samples.items():
                table[tone][name] = llamacpp_nll(runtime, held_out)
    return table


if __name__ == "__main__":
    main()
