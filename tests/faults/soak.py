"""A training with checkpoints and a reader that polls it, for an hour: is their memory flat?

    python tests/faults/soak.py --minutes 60

A tiny Llama is trained on the CPU in one process, with a checkpoint every few steps; another reads the run directory again and
again as the UI does. Every 10 s the resident memory of both is looked at. Flat is called what, after a warm-up of a sixth of
the time, rises by less than 10 MB an hour: the upper end of the slope's 95% interval, of a line through the means of minutes,
lies below that. So a night of ten hours costs less than 100 MB. Exits 1 where it is not flat, or where a process failed.
"""

import argparse
import math
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np
import psutil
from scipy import stats

from irm_lite.base.presets import presets
from irm_lite.runs.checkpoints import step_of
from irm_lite.runs.directory import RunDirectory
from irm_lite_tui.dashboard.reader import DashboardReader

sys.path.insert(0, str(Path(__file__).parents[1]))

_SAMPLE_SECONDS, _MINUTE = 10.0, 60.0
_POLL_SECONDS = 0.5  # as often as the dashboard looks
_WARM_UP = 1 / 6
_FEWEST_MINUTES = 5  # of means, below which nothing is said
FLAT = 10.0  # MB an hour
_SETTINGS = {
    "data": "anger",
    "quant": "none",
    "device": "cpu",
    "max-steps": "10000000",
    "batch-size": "4",
    "lr-scheduler-type": "constant",
    "eval-steps": "200",
    "save-steps": "10",
    "sample-tokens": "8",
    "early-stopping-patience": "0",
}


@dataclass(frozen=True)
class Slope:
    """MB an hour, and the ends of its 95% interval."""

    value: float
    low: float
    high: float

    @property
    def flat(self) -> bool:
        return self.high < FLAT


def slope(seconds: Sequence[float], megabytes: Sequence[float]) -> Slope:
    """Of a line through the means of minutes (samples within one are not independent); infinite where there are too few."""
    by_minute: dict[int, list[tuple[float, float]]] = {}
    for at, size in zip(seconds, megabytes, strict=True):
        by_minute.setdefault(int(at // _MINUTE), []).append((at, size))
    if len(by_minute) < _FEWEST_MINUTES:
        return Slope(math.nan, -math.inf, math.inf)
    hours, means = np.array([np.mean(each, axis=0) for each in by_minute.values()]).T / [[3600.0], [1.0]]
    line = stats.linregress(hours, means)
    reach = float(stats.t.ppf(0.975, len(means) - 2) * line.stderr)
    return Slope(float(line.slope), float(line.slope) - reach, float(line.slope) + reach)


def read_for_ever(run: Path) -> NoReturn:
    """What the UI's dashboard and a program of somebody else's read, until the process is ended."""
    dashboard, polls = DashboardReader(run), 0
    while True:
        dashboard.read()
        if polls % 20 == 0:
            deque(RunDirectory(run).events.read(), maxlen=0)
        polls += 1
        time.sleep(_POLL_SECONDS)


def soak(folder: Path, minutes: float) -> bool:
    """Whether all went well and the memory of both processes is flat; prints a line a minute."""
    from support.tiny_models import write_hf_folder  # torch, which the reader shall not hold

    model = write_hf_folder(folder / "llama", chat_template=presets()["llama-2-7b-chat"].chat_template)
    run = RunDirectory(folder / "run")
    flags = [
        part for name, value in {"model": str(model), "out": str(run.path), **_SETTINGS}.items() for part in (f"--{name}", value)
    ]
    with (folder / "train.log").open("wb") as log:
        trainer = subprocess.Popen([sys.executable, "-m", "irm_lite", "train", *flags, "--quiet"], stdout=log, stderr=log)
    reader = subprocess.Popen([sys.executable, __file__, "--read", str(run.path)])
    processes = {"trainer": psutil.Process(trainer.pid), "reader": psutil.Process(reader.pid)}
    times: list[float] = []
    held: dict[str, list[float]] = {name: [] for name in processes}
    try:
        while not run.checkpoints.all():  # the imports and the base are no part of it
            time.sleep(0.2)
            if trainer.poll() is not None:
                return _say(False, f"the training ended before its first checkpoint: {_tail(folder / 'train.log')}")
        began = time.monotonic()
        _say(True, f"{'minute':>6} {'checkpoint':>10} {'events MB':>9} {'trainer MB':>10} {'reader MB':>9}")
        while (now := time.monotonic() - began) < minutes * _MINUTE:
            if trainer.poll() is not None or reader.poll() is not None:
                return _say(False, f"a process ended after {now / _MINUTE:.1f} min: {_tail(folder / 'train.log')}")
            times.append(now)
            for name, process in processes.items():
                held[name].append(process.memory_info().rss / 1e6)
            if len(times) == 1 or now // _MINUTE > times[-2] // _MINUTE:
                _say(True, _row(run, now, held))
            time.sleep(max(0.0, began + len(times) * _SAMPLE_SECONDS - time.monotonic()))
        trainer.send_signal(signal.SIGTERM)  # a background job of a shell ignores SIGINT
        if trainer.wait(120) != 130:
            return _say(False, f"the training did not end as asked: {_tail(folder / 'train.log')}")
    finally:
        for child in (reader, trainer):
            if child.poll() is None:
                child.kill()
            child.wait()
    *_, last = run.events.read()
    kept = [time >= _WARM_UP * minutes * _MINUTE for time in times]
    late = [time for time, each in zip(times, kept, strict=True) if each]
    well = last.get("reason") == "interrupted"
    for name, sizes in held.items():
        found = slope(late, [size for size, each in zip(sizes, kept, strict=True) if each])
        verdict = "flat" if found.flat else "not shown to be flat"
        span = f"{min(sizes):.1f} to {max(sizes):.1f} MB"
        well &= _say(found.flat, f"{name}: {found.value:+.2f} MB an hour [{found.low:+.2f}, {found.high:+.2f}], {span}: {verdict}")
    return _say(well, f"{last.get('step')} steps, {len(run.checkpoints.all())} checkpoints kept, {minutes:g} min")


def _row(run: RunDirectory, now: float, held: dict[str, list[float]]) -> str:
    newest = max((step_of(path) for path in run.checkpoints.all()), default=0)
    events = run.events.path.stat().st_size / 1e6
    return f"{now / _MINUTE:6.0f} {newest:10} {events:9.2f} {held['trainer'][-1]:10.1f} {held['reader'][-1]:9.1f}"


def _tail(log: Path) -> str:
    return (log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["it said nothing"])[-1]


def _say(well: bool, text: str) -> bool:
    print(text, flush=True)
    return well


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60.0, help="how long [default: 60]")
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.read is not None:
        read_for_ever(chosen.read)
    with tempfile.TemporaryDirectory(prefix="irm-lite-soak-") as folder:
        return 0 if soak(Path(folder), chosen.minutes) else 1


if __name__ == "__main__":
    sys.exit(main())
