"""irm-lite export"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from irm_lite.cli.output import Common, Output
from irm_lite.cli.progress import stoppable_progress
from irm_lite.cli.tables import comparison_shown, score_lines
from irm_lite.core.errors import InputError
from irm_lite.core.files.atomic import require_new, require_not_read

if TYPE_CHECKING:
    from collections.abc import Mapping

    from irm_lite.scoring.score import Score
    from irm_lite.vectors.export import ExportResult
    from irm_lite.vectors.fidelity.steerings import Steering


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ExportFlags:
    """What is exported, how, and to where."""

    out: Annotated[Path | None, Parameter(alias="-o")] = None
    """The .gguf to write [default: RUN/export/vector.gguf, or adapter.gguf there]; for an adapter also a folder, for PEFT."""
    as_: Annotated[Literal["vector", "adapter"], Parameter(name="--as")] = "vector"
    """vector: a control vector, for llama.cpp; adapter: the run's exported vector (made first if there is none) as a LoRA adapter,
    for llama.cpp, Ollama, vLLM and PEFT (docs/adapter.md); of a run of kind lora the IRM itself, copied."""
    method: Literal["auto", "distil", "mean", "exact"] = "auto"
    """distil: fit vectors to the IRM; mean: its mean output; exact: copy a static IRM of site block; auto: exact where that can
    be, else the mean where it loses at most 3% of what the IRM does, else distil."""
    layers: str = "all"
    """Blocks that get a vector, from 1."""
    rank: str | None = None
    """Of an adapter: how many ranks carry the IRM itself, input-dependent part and all, at its own site: 1 to the hidden size, or
    auto, as many as gain something [default: the exported vector alone, which is of rank 1]."""
    epochs: float = 2.0
    """Passes of distil, or of what fits an adapter's further ranks, over the training samples; of distil never fewer than 40 steps
    of 8."""
    seed: int = 0
    """Seed of distil's data order."""
    gguf: str | None = None
    """The model file to measure the fidelity on in llama.cpp [default: the base's own, if it is one]."""
    questions: int = 16
    """Held-out questions that base and vector answer for the score of text (docs/score.md); 0: no score."""
    force: Annotated[bool, Parameter(negative="")] = False
    """Write over an existing file."""
    allow_disagreement: Annotated[bool, Parameter(negative="")] = False
    """Export also where llama.cpp makes quite another model of the file than transformers of the base."""


def export(
    run: Path,
    /,
    *,
    flags: ExportFlags | None = None,
    common: Common | None = None,
) -> None:
    """Write a run's effect as a GGUF control vector or a LoRA adapter, and measure how much of it arrives.

    Parameters
    ----------
    run
        The run directory.
    """
    output, flags = Output(common), flags or ExportFlags()
    if flags.as_ == "adapter":
        from irm_lite.cli.verbs.adapter import export_adapter

        export_adapter(run, flags, output)
        return
    if flags.rank is not None:
        raise InputError(f"--rank {flags.rank} is of adapters: this is a control vector", "say --as adapter, or leave it out")
    from irm_lite.base.presets import find_gguf
    from irm_lite.runs.trained import load_run
    from irm_lite.scoring.material import Extent
    from irm_lite.vectors.distil import Fitting
    from irm_lite.vectors.export import export_vector
    from irm_lite.vectors.scored import score_export, scores_document

    trained, extent = load_run(run), Extent(flags.questions)
    target = flags.out or trained.directory.default_vector
    require_new(target, flags.force)
    gguf = find_gguf(flags.gguf) if flags.gguf else None
    require_not_read(target, gguf or trained.gguf_path)
    output.note(f"loading {trained.config.model}")
    with stoppable_progress(output, "exporting") as on_progress:
        result = export_vector(
            trained,
            target,
            method=flags.method,
            layers=flags.layers,
            fitting=Fitting(flags.epochs, flags.seed),
            gguf=gguf,
            allow_disagreement=flags.allow_disagreement,
            on_progress=on_progress,
        )
    with stoppable_progress(output, "scoring") as on_progress:
        scores, failed = score_export(trained, result, extent, on_progress)
    output.tell_matches(trained.matches, result.disagreement)
    for line in filter(None, [*result.warnings, failed]):
        if line != result.disagreement:
            output.warn(line)
    share = result.dependent_share
    document = {
        "vector": str(result.path),
        "method": result.method,
        "mean_loses": result.mean_loses,
        "disagreement": result.disagreement,
        "input_dependent_share": asdict(share) if share else None,
        "score": scores_document(scores),
    }
    output.result({**document, **result.comparison.to_dict()}, *comparison_shown(result.comparison), *_told(result, scores))


def _told(result: "ExportResult", scores: "Mapping[Steering, Score]") -> list[str]:
    """Where the vector is, how it was made, and what it cannot carry."""
    blocks, share = result.vector.layers, result.dependent_share
    lines = [f"{result.path}: {result.method}, blocks {blocks[0]}-{blocks[-1]}"]
    if share is not None:
        low, high = 100 * min(share.by_layer), 100 * max(share.by_layer)
        lines.append(
            f"of the IRM's output {100 * share.overall:.1f}% varies with the input ({low:.1f} to {high:.1f}% by layer): "
            "no static vector carries that, irm-lite generate --irm does"
        )
    if result.mean_loses is not None:
        kept = "kept as it is (fitted vectors: --method distil)" if result.method == "mean" else "so vectors were fitted"
        lines.append(f"the IRM's mean loses {100 * result.mean_loses:.1f}% of what the IRM does: {kept}")
    if scores:
        lines += score_lines(scores["vector"])
    return lines
