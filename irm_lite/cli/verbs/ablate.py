"""irm-lite ablate"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter
from rich.table import Table

from irm_lite.cli.output import Common, Output
from irm_lite.cli.progress import stoppable_progress


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class AblateFlags:
    """What to zero, and what to hold it against."""

    index: Annotated[list[int] | None, Parameter(negative="")] = None
    """The index to zero; may be given several times [default: the run's most important one]."""
    where: Literal["irm", "base"] = "irm"
    """irm: in what the IRM adds; base: in the residual stream that comes out of the injected blocks."""
    controls: int = 100
    """Random indices to zero for comparison, at least 100."""
    samples: int = 12
    """Held-out answers to measure on."""
    recording: str | None = None
    """The recording that importance is taken from [default: the newest]."""
    seed: int = 0
    """Seed of the choice of controls and of the bootstrap."""


def ablate(
    run: Path,
    /,
    *,
    flags: AblateFlags | None = None,
    common: Common | None = None,
) -> None:
    """Zero an index and measure what it does, against zeroing random indices and equally important ones.

    Parameters
    ----------
    run
        The run directory.
    """
    output, flags = Output(common), flags or AblateFlags()
    from irm_lite.analysis.ablation import AblationSettings
    from irm_lite.analysis.ablation import ablate as zero_and_measure
    from irm_lite.analysis.ablation_files import save_ablations
    from irm_lite.analysis.recordings.run_recordings import with_recordings
    from irm_lite.analysis.statistics.ranking import importance
    from irm_lite.core.files.atomic import require_folder
    from irm_lite.runs.trained import load_run

    trained, recorded = load_run(run), with_recordings([run], flags.recording)[0]
    mean_abs = recorded.recording.last_phase.mean_abs
    require_folder(trained.directory.ablations)
    chosen = flags.index or [int(importance(mean_abs).argmax())]
    settings = AblationSettings(flags.where, flags.controls, flags.samples, flags.seed)
    with stoppable_progress(output, "ablating") as on_progress:
        found = zero_and_measure(trained, chosen, mean_abs, settings, on_progress=on_progress)
    paths = save_ablations(found, trained.directory, recorded.folder.name, flags.seed)
    effects = [row for each in found for row in each.to_list()]
    output.result({"run": str(run), "files": [str(path) for path in paths], "effects": effects}, _table(effects, flags.where))


def _table(effects: list[dict[str, Any]], where: str) -> Table:
    """A line for each index, measure and kind of control."""
    table = Table(title=f"zeroed in the {'IRM' if where == 'irm' else 'base'}: change in nats a token [95% interval]")
    for column in ("index", "measure", "change", "controls", "their median [2.5, 97.5%]", "rank", "p"):
        table.add_column(column)
    for row in effects:
        low, high = row["control_95"]
        table.add_row(
            str(row["index"]),
            row["measure"],
            f"{row['effect']:+.4f} [{row['effect_95'][0]:+.4f}, {row['effect_95'][1]:+.4f}]",
            f"{row['controls']} {row['controls_kind']}",
            f"{row['control_median']:+.4f} [{low:+.4f}, {high:+.4f}]",
            f"{row['rank']} of {row['controls'] + 1}",
            f"{row['p']:.3f}",
        )
    return table
