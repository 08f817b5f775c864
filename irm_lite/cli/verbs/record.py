"""irm-lite record"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from rich.table import Table

from irm_lite.cli.output import Common, Output
from irm_lite.cli.progress import stoppable_progress
from irm_lite.core.errors import InputError, Interrupted, RunError
from irm_lite.core.visible_text import safe
from irm_lite.runs.directory import RunDirectory

if TYPE_CHECKING:
    from irm_lite.analysis.recordings.recording import Recording
    from irm_lite.runs.trained import TrainedRun

_LARGEST = 5


def record(
    *runs: Path,
    prompts: Path | None = None,
    limit: int = 45,
    new_tokens: int = 32,
    keep: int = 4,
    gguf: str | None = None,
    name: str | None = None,
    force: Annotated[bool, Parameter(negative="")] = False,
    skip_existing: Annotated[bool, Parameter(negative="")] = False,
    common: Common | None = None,
) -> None:
    """Record what a run's IRM puts out, over prompts and what it generates from them.

    Parameters
    ----------
    runs
        Run directories, one after the other; those on one base load it once.
    prompts
        A .txt with one prompt a line, or a dataset file whose questions are asked [default: each run's held-out questions].
    limit
        At most so many prompts.
    new_tokens
        Tokens to generate from each prompt; 0: the prompts alone.
    keep
        Prompts whose outputs are kept token by token; of the others statistics remain.
    gguf
        Record in llama.cpp on this model file, or on a preset's [default: in transformers on the run's base].
    name
        The recording's name in each RUN/recordings [default: held-out, or the prompt file's name].
    force
        Write over an existing recording.
    skip_existing
        Pass over the runs that have a recording of that name: so the same command goes on after a stop.
    """
    output = Output(common)
    if not runs:
        raise InputError("there is nothing to record", "name run directories")
    if limit < 1:
        raise InputError(f"--limit {limit} leaves no prompt", "give at least 1")
    from irm_lite.analysis.recordings import record as engine
    from irm_lite.analysis.recordings.recording import recording_name
    from irm_lite.base.presets import find_gguf
    from irm_lite.core.files.atomic import require_folder
    from irm_lite.data.dataset import load_questions
    from irm_lite.runs.trained import load_run
    from irm_lite.steering.irm_files import read_saved

    file = None if gguf is None else find_gguf(gguf)
    questions = load_questions(prompts) if prompts else None
    targets = {
        run: RunDirectory(run).recordings / recording_name(name or (prompts.stem if prompts else "held-out")) for run in runs
    }
    for run, target in list(targets.items()):
        RunDirectory(run).config()
        read_saved(run)
        if target.exists() and not (target / "recording.json").is_file():
            raise RunError(f"{target} is in the way, and is no recording", "choose another --name, or remove it")
        if target.exists() and skip_existing:
            del targets[run]
        elif target.exists() and not force:
            raise RunError(f"{target} exists", "choose another --name, or say --force or --skip-existing")
        require_folder(target.parent)
    before: TrainedRun | None = None
    documents: list[dict[str, Any]] = []
    tables: list[Table] = []
    for number, (run, target) in enumerate(targets.items(), 1):
        trained = load_run(run)
        if before is not None:
            trained.share_base(before)
        asked = (questions or trained.held_out_questions)[:limit]
        title = "recording" if len(targets) == 1 else f"run {number} of {len(targets)}, {trained.directory.name}"
        try:
            with stoppable_progress(output, title) as on_progress:
                recording = engine.record(trained, asked, new_tokens=new_tokens, keep=keep, gguf=file, on_progress=on_progress)
        except Interrupted:
            hint = "--skip-existing goes on there" if number > 1 else "nothing is written"
            raise Interrupted("stopped" if len(targets) == 1 else f"stopped in {title}", hint) from None
        recording.save(target)
        output.tell_matches(trained.matches)
        documents.append(
            {
                "recording": str(target),
                "measured_in": recording.about.measured_in,
                "prompts": len(asked),
                "tokens": {phase: each.tokens for phase, each in recording.statistics.items()},
            }
        )
        tables.append(_table(recording, target))
        before = trained
    last = f"see it: irm-lite heatmap {documents[-1]['recording']}" if documents else "all of them are recorded already"
    output.result({"recordings": documents}, *tables, last)


def _table(recording: "Recording", target: Path) -> Table:
    table = Table(title=f"{safe(str(target))}: in {recording.about.measured_in}, {recording.about.n_prompts} prompts")
    for column in ("phase", "tokens", "mean |v|", "|v| < 1e-4", "indices most often among a layer's largest"):
        table.add_column(column, justify="right")
    for phase, each in recording.statistics.items():
        often = each.in_top.sum(0).argsort()[::-1][:_LARGEST]
        share = f"{100 * each.near_zero.mean():.1f}%"
        table.add_row(phase, str(each.tokens), f"{each.mean_abs.mean():.4f}", share, ", ".join(map(str, often)))
    return table
