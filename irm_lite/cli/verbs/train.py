"""irm-lite train"""

import shlex
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from irm_lite.cli.flags import TrainFlags
from irm_lite.cli.interrupt import graceful
from irm_lite.cli.output import Common, Output
from irm_lite.cli.progress import training_progress
from irm_lite.config import TrainConfig
from irm_lite.core.errors import InputError
from irm_lite.core.files.paths import expanded
from irm_lite.runs.directory import default_run


def train(
    settings: TrainFlags = None,
    *,
    out: Annotated[Path | None, Parameter(alias="-o")] = None,
    config: Path | None = None,
    resume: Path | None = None,
    common: Common | None = None,
) -> None:
    """Train an IRM on a frozen base, into a run directory.

    Parameters
    ----------
    out
        The run directory to make [default: runs/DATA-IRM].
    config
        A TOML file with the same settings; flags override it. A run's own run.toml will do.
    resume
        Go on with this run from its newest checkpoint.
    """
    output = Output(common)
    if resume is not None and (out is not None or config is not None or settings is not None):
        raise InputError("--resume takes no other settings", "the run's own run.toml holds them")
    if out is not None:
        out = expanded(str(out))
    from irm_lite.training import train as training

    with graceful(output) as should_stop, training_progress(output) as listen:
        if resume is not None:
            trained = training.resume(resume, on_event=listen, should_stop=should_stop)
        else:
            chosen = settings or TrainConfig()
            trained = training.train(chosen, out or default_run(chosen), on_event=listen, should_stop=should_stop)
    directory = trained.directory
    end = directory.events.finished()
    assert end is not None
    read = next((event["data_read"] for event in directory.events.read() if "data_read" in event), None)
    document = {
        "run": str(directory.path),
        "steps": end["step"],
        "best_nll": end["best_nll"],
        "seconds": end["seconds"],
        "data_read": read,
    }
    whole = " --as adapter" if trained.irm.leaves_as == "adapter" else ""  # no vector carries it whole
    output.result(
        document,
        f"run {directory.path}: step {end['best_step']} is the best, validation NLL {end['best_nll']:.3f}; {end['seconds']:.0f} s",
        f"next: irm-lite export {shlex.quote(_argument(directory.path))}{whole}",
    )


def _argument(path: Path) -> str:
    """A path that is not taken for a flag."""
    return f"./{path}" if str(path).startswith("-") else str(path)
