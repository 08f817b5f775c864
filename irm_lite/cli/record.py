"""irm-lite record"""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.table import Table

from irm_lite.cli.output import Common, Output
from irm_lite.cli.progress import stoppable_progress

_LARGEST = 5


def record(
    run: Path,
    /,
    *,
    prompts: Path | None = None,
    limit: int = 45,
    new_tokens: int = 32,
    keep: int = 4,
    gguf: str | None = None,
    name: str | None = None,
    force: Annotated[bool, Parameter(negative="")] = False,
    common: Common | None = None,
) -> None:
    """Record what a run's IRM puts out, over prompts and what it generates from them.

    Parameters
    ----------
    run
        The run directory.
    prompts
        A .txt with one prompt a line, or a dataset file whose questions are asked [default: the run's held-out questions].
    limit
        At most so many prompts.
    new_tokens
        Tokens to generate from each prompt; 0: the prompts alone.
    keep
        Prompts whose outputs are kept token by token; of the others statistics remain.
    gguf
        Record in llama.cpp on this model file, or on a preset's [default: in transformers on the run's base].
    name
        The recording's name in RUN/recordings [default: held-out, or the prompt file's name].
    force
        Write over an existing recording.
    """
    output = Output(common)
    from irm_lite import record as engine
    from irm_lite.analysis.recording import recording_name
    from irm_lite.dataset import load_questions
    from irm_lite.errors import InputError, RunError
    from irm_lite.presets import find_gguf
    from irm_lite.trained import load_run

    trained = load_run(run)
    if limit < 1:
        raise InputError(f"--limit {limit} leaves no prompt", "give at least 1")
    target = trained.directory.recordings / recording_name(name or (prompts.stem if prompts else "held-out"))
    if target.exists() and not force:
        raise RunError(f"{target} exists", "choose another --name, or say --force")
    questions = load_questions(prompts) if prompts else trained.held_out_questions
    with stoppable_progress(output, "recording") as on_progress:
        recording = engine.record(
            trained,
            questions[:limit],
            new_tokens=new_tokens,
            keep=keep,
            gguf=find_gguf(gguf) if gguf else None,
            on_progress=on_progress,
        )
        recording.save(target)
    for warning in trained.warnings:
        output.warn(warning)
    table = Table(title=f"{target}: in {recording.about.measured_in}, {recording.about.n_prompts} prompts")
    for column in ("phase", "tokens", "mean |v|", "|v| < 1e-4", "indices most often among a layer's largest"):
        table.add_column(column, justify="right")
    for phase, each in recording.statistics.items():
        often = each.in_top.sum(0).argsort()[::-1][:_LARGEST]
        share = f"{100 * each.near_zero.mean():.1f}%"
        table.add_row(phase, str(each.tokens), f"{each.mean_abs.mean():.4f}", share, ", ".join(map(str, often)))
    tokens = {phase: each.tokens for phase, each in recording.statistics.items()}
    output.result(
        {"recording": str(target), "measured_in": recording.about.measured_in, "prompts": len(questions[:limit]), "tokens": tokens},
        table,
        f"see it: irm-lite heatmap {target}",
    )
