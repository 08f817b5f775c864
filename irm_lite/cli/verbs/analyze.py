"""irm-lite analyze"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from irm_lite.cli.output import Common, Output
from irm_lite.cli.progress import stoppable_progress
from irm_lite.core.errors import InputError
from irm_lite.core.files.atomic import require_new


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class AnalyzeFlags:
    """Where the report goes, and what it is of."""

    out: Annotated[Path, Parameter(alias="-o")]
    """The folder to write."""
    recording: str | None = None
    """The recording's name in each run [default: each one's newest]."""
    phase: Literal["prompt", "generated"] = "generated"
    """The tokens that the statistics are of."""
    mark: Annotated[list[int] | None, Parameter(negative="")] = None
    """An index to look at in particular, such as 1512; may be given several times."""
    neutral: str = "neutral"
    """The data of the runs without an emotion, which those with one are held against: a tone, or a file's name."""
    samples: int = 100
    """Training answers for the gradient field and the features of the base."""
    seed: int = 0
    """Seed of permutations and bootstraps."""
    force: Annotated[bool, Parameter(negative="")] = False
    """Replace a report that is there."""


def analyze(
    *runs: Path,
    flags: AnalyzeFlags,
    common: Common | None = None,
) -> None:
    """Hold recorded runs of one base against chance and against the base itself: report.html and report.json.

    Parameters
    ----------
    runs
        Run directories that have a recording.
    """
    output = Output(common)
    if not runs:
        raise InputError("there is nothing to analyze", "name run directories")
    for file in (flags.out / "report.html", flags.out / "report.json"):
        require_new(file, flags.force)
    from irm_lite.analysis import analyze as engine
    from irm_lite.analysis.recordings.run_recordings import with_recordings
    from irm_lite.analysis.report.page import write_report
    from irm_lite.core.files.atomic import require_folder

    recorded = with_recordings(runs, flags.recording)
    require_folder(flags.out)
    output.note(f"loading {recorded[0].config.model}")
    with stoppable_progress(output, "analysing") as on_progress:
        found = engine.analyze(
            recorded,
            phase=flags.phase,
            marks=flags.mark or (),
            neutral=flags.neutral,
            samples=flags.samples,
            seed=flags.seed,
            on_progress=on_progress,
        )
    for note in found.document["notes"]:
        output.warn(note)
    page = write_report(found.document, found.heatmaps, flags.out)
    claims = [(f"{each['verdict']}: {each['claim']}", f"  {each['text']}") for each in found.document["findings"]]
    lines = [line for claim in claims for line in claim]
    output.result({"report": str(page), **found.document}, *lines, f"the full report: {page}")
