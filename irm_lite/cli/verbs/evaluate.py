"""irm-lite eval"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from irm_lite.cli.output import Common, Output
from irm_lite.cli.progress import stoppable_progress
from irm_lite.cli.tables import comparison_shown, score_shown, side_effects_shown

if TYPE_CHECKING:
    from irm_lite.vectors.adapter.evaluated import AdapterEvaluation
    from irm_lite.vectors.evaluation import Evaluation


def evaluate(
    run: Path,
    /,
    *,
    gguf: str | None = None,
    vector: Annotated[list[str] | None, Parameter(negative="")] = None,
    adapter: Annotated[list[str] | None, Parameter(negative="")] = None,
    layers: str | None = None,
    questions: int = 16,
    max_new_tokens: int | None = None,
    allow_disagreement: Annotated[bool, Parameter(negative="")] = False,
    common: Common | None = None,
) -> None:
    """Measure a run on its held-out answers: base, IRM and vector in one llama.cpp on one GGUF, the fidelity, the score of text.

    Parameters
    ----------
    run
        The run directory.
    gguf
        The model file for llama.cpp [default: the base's own; without one everything is measured in transformers].
    vector
        A control vector as PATH or PATH:SCALE; several add up [default: RUN/export/vector.gguf].
    adapter
        A LoRA adapter as PATH or PATH:SCALE, measured beside them; several work together. Needs a GGUF.
    layers
        Only these blocks of the vector, as in 10-20.
    questions
        Held-out questions that base, IRM and vector answer in text, for the score (docs/score.md); 0 for none, and no score.
    max_new_tokens
        Tokens of each of those answers, at most [default: 64, or half more than the longest known answer].
    allow_disagreement
        Measure also where llama.cpp makes quite another model of the file than transformers of the base.
    """
    output = Output(common)
    from irm_lite.base.presets import find_gguf
    from irm_lite.core.errors import VectorError
    from irm_lite.runs.trained import load_run
    from irm_lite.scoring.material import Extent
    from irm_lite.steering.control_vector import load_sum
    from irm_lite.steering.layers import parse_layers
    from irm_lite.vectors.adapter.evaluated import evaluate_adapters
    from irm_lite.vectors.evaluation import evaluate_run

    trained = load_run(run)
    names = vector or [str(trained.directory.default_vector)]
    if not vector and not trained.directory.default_vector.exists():
        raise VectorError(f"{run} has no vector yet", f"irm-lite export {run}, or name one with --vector")
    chosen = load_sum(names)
    assert chosen is not None
    if layers is not None:
        chosen = chosen.select(parse_layers(layers, trained.fingerprint.n_layers, first=1))
    model_file = find_gguf(gguf) if gguf else None
    with stoppable_progress(output, "measuring") as on_progress:
        result = evaluate_run(
            trained,
            chosen,
            model_file,
            extent=Extent(questions, max_new_tokens),
            allow_disagreement=allow_disagreement,
            on_stage=output.note,
            on_progress=on_progress,
        )
    by_adapter = None
    if adapter:
        with stoppable_progress(output, "measuring the adapter") as on_progress:
            by_adapter = evaluate_adapters(trained, adapter, model_file, Extent(questions, max_new_tokens), on_progress)
    told = [*trained.matches, *result.matches, *(by_adapter.matches if by_adapter else [])]
    output.tell_matches(told, result.disagreement)
    for line in [*result.prompts.warnings, *filter(None, [result.aligned.unsteered])]:
        output.warn(line)
    _show(output, {"run": str(run), "vectors": names}, result, by_adapter)


def _show(output: Output, about: dict[str, Any], result: "Evaluation", by_adapter: "AdapterEvaluation | None") -> None:
    document = {"fidelity": result.aligned.fidelity, **about, **result.to_dict()}
    scores = dict(result.scores)
    if by_adapter and by_adapter.score:
        scores["adapter"] = by_adapter.score
    output.result(
        {**document, "adapter": by_adapter.to_dict() if by_adapter else None},
        *comparison_shown(result.aligned),
        *(comparison_shown(by_adapter.aligned, "adapter") if by_adapter else ()),
        *side_effects_shown(result, by_adapter.neutral if by_adapter else None),
        *score_shown(scores),
    )
