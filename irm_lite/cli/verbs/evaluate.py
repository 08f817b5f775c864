"""irm-lite eval"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from irm_lite.cli.output import Common, Output
from irm_lite.cli.progress import stoppable_progress
from irm_lite.cli.tables import comparison_shown, score_shown, side_effects_shown

if TYPE_CHECKING:
    from rich.console import RenderableType

    from irm_lite.scoring.score import Score
    from irm_lite.vectors.adapter.evaluated import AdapterEvaluation
    from irm_lite.vectors.evaluation import Evaluation
    from irm_lite.vectors.fidelity.steerings import Steering


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class EvalFlags:
    """What is measured, and on what."""

    gguf: str | None = None
    """The model file for llama.cpp [default: the base's own; without one everything is measured in transformers]."""
    vector: Annotated[list[str] | None, Parameter(negative="")] = None
    """A control vector as PATH or PATH:SCALE; several add up [default: RUN/export/vector.gguf, if it is there]."""
    adapter: Annotated[list[str] | None, Parameter(negative="")] = None
    """A LoRA adapter as PATH or PATH:SCALE, measured beside the vector if there is one; several work together. Needs a GGUF."""
    layers: str | None = None
    """Only these blocks of the vector, as in 10-20."""
    questions: int = 16
    """Held-out questions that base, IRM and vector answer in text, for the score (docs/score.md); 0 for none, and no score."""
    max_new_tokens: int | None = None
    """Tokens of each of those answers, at most [default: 64, or half more than the longest known answer]."""
    seed: int = 0
    """Seed of the sampled answers, and of the questions that are drawn for the score's intervals."""
    allow_disagreement: Annotated[bool, Parameter(negative="")] = False
    """Measure also where llama.cpp makes quite another model of the file than transformers of the base."""


def evaluate(run: Path, /, *, flags: EvalFlags | None = None, common: Common | None = None) -> None:
    """Measure a run on its held-out answers: base, IRM and vector in one llama.cpp on one GGUF, the fidelity, the score of text.

    Parameters
    ----------
    run
        The run directory.
    """
    output, flags = Output(common), flags or EvalFlags()
    from irm_lite.base.presets import find_gguf
    from irm_lite.core.errors import VectorError
    from irm_lite.runs.trained import load_run
    from irm_lite.scoring.material import Extent
    from irm_lite.steering.control_vector import load_sum
    from irm_lite.steering.layers import parse_layers
    from irm_lite.vectors.adapter.evaluated import evaluate_adapters, require_adapters
    from irm_lite.vectors.evaluation import evaluate_run

    trained, extent = load_run(run), Extent(flags.questions, flags.max_new_tokens, flags.seed)
    own = trained.directory
    adapters = flags.adapter
    if not (adapters or flags.vector) and trained.irm.leaves_as == "adapter" and own.default_adapter.exists():
        adapters = [str(own.default_adapter)]  # what it leaves whole
    names = flags.vector or [str(own.default_vector)]
    alone = not flags.vector and not own.default_vector.exists()  # adapters, without a vector beside them
    if alone and (flags.layers is not None or not adapters):
        whole = " --as adapter" if trained.irm.leaves_as == "adapter" else ""
        raise VectorError(f"{run} has no vector yet", f"irm-lite export {run}{whole}, or name one with --vector")
    model_file = find_gguf(flags.gguf) if flags.gguf else None
    if adapters:  # before the vector is measured, not after it
        require_adapters(trained, adapters, model_file)
    result = by_adapter = None
    if not alone:
        chosen = load_sum(names)
        assert chosen is not None
        if flags.layers is not None:
            chosen = chosen.select(parse_layers(flags.layers, trained.fingerprint.n_layers, first=1))
        with stoppable_progress(output, "measuring") as on_progress:
            result = evaluate_run(
                trained,
                chosen,
                model_file,
                extent=extent,
                allow_disagreement=flags.allow_disagreement,
                on_stage=output.note,
                on_progress=on_progress,
            )
    if adapters:
        with stoppable_progress(output, "measuring the adapter") as on_progress:
            by_adapter = evaluate_adapters(trained, adapters, model_file, extent, on_progress, flags.allow_disagreement)
    told = [*trained.matches, *(result.matches if result else []), *(by_adapter.matches if by_adapter else [])]
    first = result or by_adapter  # of vector and adapter both say the same of the file
    assert first is not None
    output.tell_matches(told, first.disagreement)
    for line in first.prompts.warnings:
        output.warn(line)
    for unsteered in dict.fromkeys(each.aligned.unsteered for each in (result, by_adapter) if each):
        if unsteered:
            output.warn(unsteered)
    about = {"fidelity": first.aligned.fidelity, "run": str(run), "vectors": [] if alone else names}
    _show(output, about, result, by_adapter)


def _show(output: Output, about: dict[str, Any], result: "Evaluation | None", by_adapter: "AdapterEvaluation | None") -> None:
    scores: dict[Steering, Score] = {**(result.scores if result else {}), **(by_adapter.scores if by_adapter else {})}
    output.result(
        {**about, **(result.to_dict() if result else {}), "adapter": by_adapter.to_dict() if by_adapter else None},
        *(comparison_shown(result.aligned) if result else ()),
        *(comparison_shown(by_adapter.aligned, "adapter") if by_adapter else ()),
        *_side_effects(result, by_adapter),
        *score_shown(scores),
    )


def _side_effects(result: "Evaluation | None", by_adapter: "AdapterEvaluation | None") -> "tuple[RenderableType, ...]":
    """Of the vector and the adapter, or of an adapter alone."""
    if result is not None:
        return side_effects_shown(result.neutral, result.generations, by_adapter.neutral if by_adapter else None)
    assert by_adapter is not None
    return side_effects_shown(by_adapter.neutral, name="adapter")
