"""irm-lite ablate"""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from rich.table import Table

from irm_lite.cli.output import Common, Output
from irm_lite.cli.progress import stoppable_progress


def ablate(
    run: Path,
    /,
    *,
    index: Annotated[list[int] | None, Parameter(negative="")] = None,
    where: Literal["irm", "base"] = "irm",
    controls: int = 100,
    samples: int = 12,
    recording: str | None = None,
    seed: int = 0,
    common: Common | None = None,
) -> None:
    """Zero an index and measure what it does, against zeroing random indices and equally important ones.

    Parameters
    ----------
    run
        The run directory.
    index
        The index to zero; may be given several times [default: the run's most important one].
    where
        irm: in what the IRM adds; base: in the residual stream that comes out of the injected blocks.
    controls
        Random indices to zero for comparison, at least 100.
    samples
        Held-out answers to measure on.
    recording
        The recording that importance is taken from [default: the newest].
    seed
        Seed of the choice of controls and of the bootstrap.
    """
    output = Output(common)
    from irm_lite.analysis import ablation
    from irm_lite.analysis.recordings.of_runs import with_recordings
    from irm_lite.analysis.statistics.ranking import importance
    from irm_lite.core.files.atomic import require_folder
    from irm_lite.runs.trained import load_run

    trained, recorded = load_run(run), with_recordings([run], recording)[0]
    mean_abs = recorded.recording.last_phase.mean_abs
    require_folder(trained.directory.ablations)
    chosen = index or [int(importance(mean_abs).argmax())]
    with stoppable_progress(output, "ablating") as on_progress:
        found = ablation.ablate(
            trained, chosen, mean_abs, where=where, controls=controls, samples=samples, seed=seed, on_progress=on_progress
        )
    table = Table(title=f"zeroed in the {'IRM' if where == 'irm' else 'base'}: change in nats a token [95% interval]")
    for column in ("index", "measure", "change", "controls", "their median [2.5, 97.5%]", "rank", "p"):
        table.add_column(column)
    paths = [str(path) for path in ablation.save_ablations(found, trained.directory, recorded.folder.name, seed)]
    for each in found:
        for row in each.to_list():
            low, high = row["control_95"]
            table.add_row(
                str(each.index),
                row["measure"],
                f"{row['effect']:+.4f} [{row['effect_95'][0]:+.4f}, {row['effect_95'][1]:+.4f}]",
                f"{row['controls']} {row['controls_kind']}",
                f"{row['control_median']:+.4f} [{low:+.4f}, {high:+.4f}]",
                f"{row['rank']} of {row['controls'] + 1}",
                f"{row['p']:.3f}",
            )
    output.result({"run": str(run), "files": paths, "effects": [row for each in found for row in each.to_list()]}, table)
