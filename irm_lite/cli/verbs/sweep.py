"""irm-lite sweep"""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.table import Table

from irm_lite.cli.interrupt import graceful
from irm_lite.cli.output import Common, Output
from irm_lite.cli.progress import training_progress
from irm_lite.core.errors import TrainingFailed
from irm_lite.core.visible_text import safe

if TYPE_CHECKING:
    from irm_lite.jobs.sweep import Outcome


def sweep(
    file: Path,
    /,
    *,
    out: Annotated[Path | None, Parameter(alias="-o")] = None,
    download: Annotated[bool, Parameter(negative="")] = False,
    only: Annotated[list[str] | None, Parameter(negative="")] = None,
    list_: Annotated[bool, Parameter(name="--list", negative="")] = False,
    common: Common | None = None,
) -> None:
    """Train a grid of runs, one after the other. The same command goes on after a stop.

    Parameters
    ----------
    file
        A TOML file: [train] holds what is common to all runs, [grid] lists of values, [[setting]] named sets of values.
    out
        The folder of the run directories [default: runs/FILE].
    download
        Fetch the base (or an hf: dataset) from the hub if it is not on this machine.
    only
        Train this run alone, by its name or its number from 1: a job of a scheduler (docs/scaling.md).
    list_
        Print the runs' names and train nothing.
    """
    output = Output(common)
    from irm_lite.jobs.sweep import only_these, read_sweep, run_sweep

    planned = read_sweep(file)
    if only:
        planned = only_these(planned, only)
    if list_:
        output.result({"runs": [each.name for each in planned]}, *(each.name for each in planned))
        return
    if download:
        planned = [dataclasses.replace(each, config=dataclasses.replace(each.config, download=True)) for each in planned]
    folder = out or Path("runs") / file.stem

    def report(title: str, outcome: "Outcome") -> None:
        if outcome.error is not None:
            output.warn(f"{title}: {outcome.error}")
        elif outcome.state == "was there":
            output.note(f"{title}: is there already")

    with graceful(output) as should_stop:
        outcomes = run_sweep(
            planned,
            folder,
            listening=lambda title: training_progress(output, title),
            on_outcome=report,
            should_stop=should_stop,
        )
    output.result({"out": str(folder), "runs": [each.to_dict() for each in outcomes]}, _table(outcomes))
    failed = [each.name for each in outcomes if each.state == "failed"]
    if failed:
        raise TrainingFailed(
            f"{len(failed)} of {len(outcomes)} runs failed ({', '.join(failed)})", "the same command tries them again"
        )


def _table(outcomes: "list[Outcome]") -> Table:
    table = Table(title="validation NLL, nats a token", title_justify="left")
    table.add_column("run")
    for column in ("base", "IRM, best", "at step", "steps", "seconds"):
        table.add_column(column, justify="right")
    table.add_column("")
    for each in outcomes:
        numbers = ("" if value is None else f"{value:.3f}" for value in (each.nll_base, each.best_nll))
        steps = ("" if value is None else str(value) for value in (each.best_step, each.steps))
        table.add_row(safe(each.name), *numbers, *steps, f"{each.seconds:.0f}", each.state)
    return table
