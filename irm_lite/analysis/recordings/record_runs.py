"""Record several runs, one after the other, each into a folder of its own; those on one base load it once."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from irm_lite.analysis.recordings import record
from irm_lite.analysis.recordings.recording import Recording, recording_name
from irm_lite.base.fingerprint import Match
from irm_lite.core.errors import Interrupted, RunError
from irm_lite.core.files.atomic import require_folder
from irm_lite.core.types import Progress
from irm_lite.runs.directory import RunDirectory, require_unlinked
from irm_lite.runs.trained import TrainedRun, load_run
from irm_lite.steering.irm_files import read_saved


def choose_targets(runs: Sequence[Path], name: str, *, force: bool = False, skip_existing: bool = False) -> dict[Path, Path]:
    """The folder of each run's recording of that name; with `skip_existing` without the runs that have one.

    Raises RunError where a run cannot be read, where its folder holds something else, or a recording and neither is said.
    """
    targets = {run: RunDirectory(run).recordings / recording_name(name) for run in runs}
    for run, target in list(targets.items()):
        RunDirectory(run).config()
        read_saved(run)
        if target.exists() and not (target / "recording.json").is_file():
            raise RunError(f"{target} is in the way and is not a recording", "choose another --name, or remove it")
        if target.exists() and skip_existing:
            del targets[run]
        elif target.exists() and not force:
            raise RunError(f"{target} exists", "choose another --name, or say --force or --skip-existing")
        require_unlinked(target.parent)
        require_folder(target.parent)
    return targets


def record_runs(
    targets: dict[Path, Path],
    questions: Sequence[str] | None,
    *,
    limit: int,
    new_tokens: int,
    keep: int,
    gguf: Path | None,
    listening: Callable[[str], AbstractContextManager[Progress]],
) -> Iterator[tuple[Path, Recording, list[Match]]]:
    """Record each run into its target; after each: the target, the recording, and how the run fits what it was recorded on.

    At most `limit` of the questions are asked, or of each run's held-out ones where there are none; `new_tokens`, `keep` and
    `gguf` as `record` has them. `listening` gives the progress for the run of a title ("run 2 of 3, anger"). Raises
    Interrupted, which says what is left, where the progress does.
    """
    before: TrainedRun | None = None
    for number, (run, target) in enumerate(targets.items(), 1):
        trained = load_run(run)
        if before is not None:
            trained.share_base(before)
        asked = (questions or trained.held_out_questions)[:limit]
        title = "recording" if len(targets) == 1 else f"run {number} of {len(targets)}, {trained.directory.name}"
        try:
            with listening(title) as on_progress:
                recording = record.record(trained, asked, new_tokens=new_tokens, keep=keep, gguf=gguf, on_progress=on_progress)
        except Interrupted:
            hint = "--skip-existing goes on there" if number > 1 else "nothing is written"
            raise Interrupted("stopped" if len(targets) == 1 else f"stopped in {title}", hint) from None
        recording.save(target)
        yield target, recording, trained.matches
        before = trained
