"""What two runs have to agree in to be the same."""

from pathlib import Path
from typing import Any

from irm_lite.runs.directory import RunDirectory

_TIMES = ("time", "tokens_per_second", "eta_seconds", "memory_bytes", "seconds", "training_peak_bytes")


def result(run: Path) -> dict[str, bytes]:
    """The IRM and the checkpoints of a run, byte by byte."""
    files = [*run.glob("irm.*"), *(run / "checkpoints").rglob("*")]
    return {path.relative_to(run).as_posix(): path.read_bytes() for path in sorted(files) if path.is_file()}


def events(run: Path, warned: bool = False) -> dict[tuple[str, int], dict[str, Any]]:
    """What a run tells of its steps, the latest of each kind and step, without times; no warnings, unless `warned`."""
    told = list(RunDirectory(run).events.read())
    warnings = [event for event in told if event["kind"] == "warning" and event.get("of") != "text"]  # a tiny model babbles
    assert warned or not warnings, told
    steps = {(event["kind"], event["step"]): event for event in told if "step" in event}
    return {key: {name: value for name, value in event.items() if name not in _TIMES} for key, event in sorted(steps.items())}
