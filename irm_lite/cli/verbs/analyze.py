"""irm-lite analyze"""

import os
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from irm_lite.cli.output import Common, Output
from irm_lite.cli.progress import stoppable_progress
from irm_lite.core.errors import InputError


def analyze(
    *runs: Path,
    out: Annotated[Path, Parameter(alias="-o")],
    recording: str | None = None,
    phase: Literal["prompt", "generated"] = "generated",
    mark: Annotated[list[int] | None, Parameter(negative="")] = None,
    neutral: str = "neutral",
    samples: int = 100,
    seed: int = 0,
    force: Annotated[bool, Parameter(negative="")] = False,
    common: Common | None = None,
) -> None:
    """Hold recorded runs of one base against chance and against the base itself: report.html and report.json.

    Parameters
    ----------
    runs
        Run directories that have a recording.
    out
        The folder to write.
    recording
        The recording's name in each run [default: each one's newest].
    phase
        The tokens that the statistics are of.
    mark
        An index to look at in particular, such as 1512; may be given several times.
    neutral
        The data of the runs without an emotion, which those with one are held against: a tone, or a file's name.
    samples
        Training answers for the gradient field and the features of the base.
    seed
        Seed of permutations and bootstraps.
    force
        Replace a report that is there.
    """
    output = Output(common)
    if not runs:
        raise InputError("there is nothing to analyze", "name run directories")
    for file in (out / "report.html", out / "report.json"):
        if os.path.lexists(file) and not force:  # a link that leads nowhere is somebody's too
            raise InputError(f"{file} exists", "choose another -o, or say --force")
    from irm_lite.analysis import analyze as engine
    from irm_lite.analysis.recordings.of_runs import with_recordings
    from irm_lite.analysis.report.page import write_report
    from irm_lite.core.files.atomic import require_folder

    recorded = with_recordings(runs, recording)
    require_folder(out)
    output.note(f"loading {recorded[0].config.model}")
    with stoppable_progress(output, "analysing") as on_progress:
        found = engine.analyze(
            recorded, phase=phase, marks=mark or (), neutral=neutral, samples=samples, seed=seed, on_progress=on_progress
        )
    for note in found.document["notes"]:
        output.warn(note)
    page = write_report(found.document, found.heatmaps, out)
    claims = [(f"{each['verdict']}: {each['claim']}", f"  {each['text']}") for each in found.document["findings"]]
    lines = [line for claim in claims for line in claim]
    output.result({"report": str(page), **found.document}, *lines, f"the whole of it: {page}")
