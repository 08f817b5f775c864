"""irm-lite record"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from rich.table import Table

from irm_lite.cli.output import Common, Output
from irm_lite.cli.progress import stoppable_progress
from irm_lite.core.errors import InputError
from irm_lite.core.visible_text import safe

if TYPE_CHECKING:
    from irm_lite.analysis.recordings.recording import Recording

_LARGEST = 5


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class RecordFlags:
    """What is asked, and what of it is kept."""

    prompts: Path | None = None
    """A .txt with one prompt a line, or a dataset file whose questions are asked [default: each run's held-out questions]."""
    limit: int = 45
    """At most this many prompts."""
    new_tokens: int = 32
    """Tokens to generate from each prompt; 0: the prompts alone."""
    keep: int = 4
    """Prompts whose outputs are kept token by token; of the others statistics remain."""
    gguf: str | None = None
    """Record in llama.cpp on this model file, or on a preset's [default: in transformers on the run's base]."""
    name: str | None = None
    """The recording's name in each RUN/recordings [default: held-out, or the prompt file's name]."""
    force: Annotated[bool, Parameter(negative="")] = False
    """Write over an existing recording."""
    skip_existing: Annotated[bool, Parameter(negative="")] = False
    """Skip the runs that have a recording of that name, so that the same command goes on after a stop."""


def record(
    *runs: Path,
    flags: RecordFlags | None = None,
    common: Common | None = None,
) -> None:
    """Record what a run's IRM puts out, over prompts and what it generates from them.

    Parameters
    ----------
    runs
        Run directories, one after the other; those on one base load it once.
    """
    output, flags = Output(common), flags or RecordFlags()
    if not runs:
        raise InputError("there is nothing to record", "name run directories")
    if flags.limit < 1:
        raise InputError(f"--limit {flags.limit} leaves no prompt", "give at least 1")
    from irm_lite.analysis.recordings.record_runs import choose_targets, record_runs
    from irm_lite.base.presets import find_gguf
    from irm_lite.data.dataset import load_questions

    gguf = None if flags.gguf is None else find_gguf(flags.gguf)
    questions = load_questions(flags.prompts) if flags.prompts else None
    name = flags.name or (flags.prompts.stem if flags.prompts else "held-out")
    targets = choose_targets(runs, name, force=flags.force, skip_existing=flags.skip_existing)
    documents: list[dict[str, Any]] = []
    tables: list[Table] = []
    for target, recording, matches in record_runs(
        targets,
        questions,
        limit=flags.limit,
        new_tokens=flags.new_tokens,
        keep=flags.keep,
        gguf=gguf,
        listening=lambda title: stoppable_progress(output, title),
    ):
        output.tell_matches(matches)
        documents.append(
            {
                "recording": str(target),
                "measured_in": recording.about.measured_in,
                "prompts": recording.about.n_prompts,
                "tokens": {phase: each.tokens for phase, each in recording.statistics.items()},
            }
        )
        tables.append(_table(recording, target))
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
