"""Coverage-guided fuzzing of the readers, by atheris (pip install 'irm-lite[fuzz]'): a process each, then a table.

python tests/fuzz/drive.py --seconds 600 --runs 100000 [READER ...]
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None  # where each input is written, and the corpus grows
_SLOWEST = 2.0  # seconds that an input may take
_MOST_MIB = 200  # that a process may grow by


def main() -> int:
    """Fuzz the readers named, or all, each for `--seconds` and at least `--runs` inputs. 1 where one was found wanting."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--found", type=Path, default=Path("fuzz-found"), help="folder for inputs that broke a reader")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("readers", nargs="*")
    options = parser.parse_args()
    sys.path[:0] = [str(HERE.parent), str(HERE.parents[1])]
    if options.one:
        _fuzz(options.readers[0], options.runs, options.seconds, options.found)
    readers = options.readers or sorted(path.name for path in (HERE / "corpus").iterdir())
    rows = [_in_a_process(name, options) for name in readers]
    print(f"\n{'reader':16} {'inputs':>8} {'a second':>9} {'MiB grown':>9} {'slowest s':>9}")
    for row in rows:
        print(f"{row['reader']:16} {row['inputs']:8} {row['rate']:9.0f} {row['grown']:9.0f} {row['slowest']:9.3f} {row['verdict']}")
    return int(any(row["verdict"] for row in rows))


def _in_a_process(name: str, options: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        figures = Path(folder) / "figures.json"
        limits = ["--runs", str(options.runs), "--seconds", str(options.seconds), "--found", str(options.found)]
        command = [sys.executable, str(HERE / "drive.py"), "--one", *limits, name]
        done = subprocess.run(
            command, env={**os.environ, "FIGURES": str(figures), "TMPDIR": folder}, capture_output=True, text=True, check=False
        )
        row = json.loads(figures.read_text()) if figures.exists() else {"inputs": 0, "rate": 0, "grown": 0, "slowest": 0}
    stopped = "libFuzzer: run interrupted" in done.stderr  # by a signal from outside: nothing was found
    failed = done.returncode != 0 and not stopped
    verdict = "STOPPED from outside" if stopped else f"FAILED, see {options.found}" if failed else ""
    if failed:
        options.found.mkdir(parents=True, exist_ok=True)
        (options.found / f"{name}.log").write_text(done.stderr[-20_000:])
    elif row["slowest"] > _SLOWEST or row["grown"] > _MOST_MIB:
        verdict = "TOO SLOW" if row["slowest"] > _SLOWEST else "TOO LARGE"
    print(f"{name}: {row['inputs']} inputs {verdict}", flush=True)
    return {"reader": name, "verdict": verdict, **row}


def _fuzz(name: str, runs: int, seconds: float, found: Path) -> None:
    """Never returns: libFuzzer ends the process, or the count of inputs does."""
    import atheris

    with atheris.instrument_imports(include=["irm_lite", "irm_lite_tui", "tomllib", "csv"]):
        from fuzz.readers import CORPUS, read

        for seed in sorted((CORPUS / name).iterdir()):  # what is imported late is imported, and instrumented, now
            read(name, seed.read_bytes())
    before, began = _peak(), time.monotonic()
    figures = {"inputs": 0, "slowest": 0.0, "rate": 0.0, "grown": 0.0}

    def one(data: bytes) -> None:
        at = time.monotonic()
        read(name, data)
        now = time.monotonic()
        figures["inputs"] += 1
        figures["slowest"] = max(figures["slowest"], now - at)
        done = figures["inputs"] >= runs and now - began >= seconds
        if done or figures["inputs"] % 500 == 0:
            figures["rate"], figures["grown"] = figures["inputs"] / (now - began), _peak() - before
            Path(os.environ["FIGURES"]).write_text(json.dumps(figures))
        if done:
            os._exit(0)

    found.mkdir(parents=True, exist_ok=True)
    limits = [f"-timeout={_SLOWEST:.0f}", f"-rss_limit_mb={before + _MOST_MIB:.0f}", "-max_len=32768", "-use_value_profile=1"]
    with tempfile.TemporaryDirectory() as grown:
        atheris.Setup([sys.argv[0], grown, str(CORPUS / name), f"-artifact_prefix={found}/{name}-", *limits], one)
        atheris.Fuzz()


def _peak() -> float:
    """MiB of this process at its largest."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    sys.exit(main())
