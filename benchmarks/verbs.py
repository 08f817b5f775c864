"""How long commands take as they are typed: start-up, and the export of a trained run.

python benchmarks/verbs.py [--run RUN] [--rounds 5] [--json FILE]

Each is a process of its own, in turns, round after round; the first round is a warm-up. Start-up is beside `python -c pass`, which
no program can beat. Without --run a `lite` IRM is trained on the demo model for 20 steps first; the exports are run once each.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from irm_lite.core.files.atomic import write_text

IRM_LITE = [sys.executable, "-m", "irm_lite"]
STARTS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "import irm_lite": [sys.executable, "-c", "import irm_lite"],
    "irm-lite --version": [*IRM_LITE, "--version"],
    "irm-lite --help": [*IRM_LITE, "--help"],
    "irm-lite train --help": [*IRM_LITE, "train", "--help"],
    "irm-lite models list": [*IRM_LITE, "models", "list"],
    "irm-lite doctor": [*IRM_LITE, "doctor"],
}
EXPORTS = {"mean": ["--method", "mean"], "distil": ["--method", "distil"]}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="a trained run, in place of one made for this")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    starts: dict[str, list[float]] = {name: [] for name in STARTS}
    for number in range(options.rounds + 1):
        for name, command in STARTS.items() if number % 2 else reversed(STARTS.items()):
            seconds = timed(command)[0]
            starts[name] += [seconds] if number else []
    table = Table("command", "seconds, median", "range")
    for name, found in starts.items():
        table.add_row(name, f"{statistics.median(found):.2f}", f"{min(found):.2f} to {max(found):.2f}")
    exports = {}
    with tempfile.TemporaryDirectory() as folder:
        run = options.run or trained(Path(folder))
        for name, flags in EXPORTS.items():
            vector = Path(folder) / f"{name}.gguf"
            seconds, printed = timed([*IRM_LITE, "export", str(run), "-o", str(vector), *flags, "--json"])
            exports[name] = {"seconds": seconds, "fidelity": json.loads(printed)["fidelity"]}
            table.add_row(f"irm-lite export --method {name}", f"{seconds:.1f}", f"fidelity {exports[name]['fidelity']}")
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    if options.json:
        write_text(options.json, json.dumps({"rounds": options.rounds, "starts": starts, "exports": exports}, indent=2) + "\n")


def trained(folder: Path) -> Path:
    """A short training's run directory."""
    run = folder / "run"
    command = [*IRM_LITE, "train", "--irm", "lite", "--out", str(run), "--max-steps", "20", "--quiet"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return run


def timed(command: list[str]) -> tuple[float, str]:
    """Wall seconds of a command, and what it printed."""
    began = time.perf_counter()
    done: Any = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return time.perf_counter() - began, done.stdout


if __name__ == "__main__":
    main()
