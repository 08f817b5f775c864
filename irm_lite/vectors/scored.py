"""The score of what a run's IRM and vector write, in llama.cpp on a GGUF or in transformers, and where an export keeps it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irm_lite.core.errors import DataError, Interrupted, IrmLiteError
from irm_lite.core.types import Progress, unwatched
from irm_lite.data.dataset import Example
from irm_lite.data.encoding import Sample, encode
from irm_lite.scoring.hearing import GREEDY, Heard, hear
from irm_lite.scoring.material import Encode, Extent, Material, gather
from irm_lite.scoring.score import Score, score
from irm_lite.scoring.speaker import Speaker
from irm_lite.steering.control_vector import ControlVector
from irm_lite.vectors.fidelity.generations import Generations
from irm_lite.vectors.fidelity.steerings import Steering
from irm_lite.vectors.kept_figures import keep_figures, kept_figures
from irm_lite.vectors.speakers import speakers

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from irm_lite.llamacpp import Runtime
    from irm_lite.runs.trained import TrainedRun
    from irm_lite.vectors.export import ExportResult

MAX_LENGTH = 512  # tokens of a sample, where no run says how many


def material_of(run: "TrainedRun", extent: Extent) -> Material:
    """What a run is scored on: its held-out questions."""
    encoded = encoder(run.tokenizer, run.config.max_length)
    return gather(run.config.data, run.dataset, run.held_out, encoded, answer_column=run.config.answer_column, extent=extent)


def encoder(tokenizer: "PreTrainedTokenizerBase", max_length: int) -> Encode:
    """Samples of at most so many tokens, as the score takes them."""

    def encoded(example: Example) -> Sample | None:
        try:
            sample = encode(tokenizer, example)
        except DataError:  # a template that hides some answer: it is left out, as one that is too long
            return None
        return sample if len(sample.ids) <= max_length else None

    return encoded


def room_for(material: Material) -> int:
    """Tokens of the longest text that scoring has: a prompt with an answer, known or written."""
    groups = (material.toned, material.neutral, *material.distractors, *material.choices)
    known = [each for group in groups for each in group]
    written = [each.answer_start + material.new_tokens for each in material.toned]
    return max([len(each.ids) for each in known] + written, default=8)


def hear_all(
    runtime: "Runtime", vector: ControlVector, material: Material, names: Sequence[Steering], on_progress: Progress = unwatched
) -> dict[Steering, Heard]:
    """What those of base, IRM and vector say, on a runtime that was made with the IRM and several sequences."""
    with speakers(runtime, vector, on_progress) as by_name:
        return {name: hear(by_name[name], by_name["base"], material) for name in names}


def scores_of(heard: Mapping[Steering, Heard], material: Material) -> dict[Steering, Score]:
    """The score of each, beside the base, which is among them."""
    return {name: score(each, heard["base"], material) for name, each in heard.items()}


def generations_of(heard: Mapping[Steering, Heard], material: Material | None) -> Generations | None:
    """The greedy answers of each; None where no questions were asked."""
    if material is None or not material.toned:
        return None
    questions = [sample.example.question for sample in material.toned]
    return Generations(questions, {name: [answer.text for answer in each.answers[GREEDY.name]] for name, each in heard.items()})


def score_vector(
    run: "TrainedRun", vector: ControlVector, gguf: Path | None, extent: Extent, on_progress: Progress = unwatched
) -> dict[Steering, Score]:
    """Of base and vector: in llama.cpp on the GGUF, or in transformers on the run's base where there is none."""
    material = material_of(run, extent)
    if gguf is None:
        return scores_of(hear_in_transformers(run, {"base": None, "vector": vector}, material, on_progress), material)
    from irm_lite.llamacpp import Runtime
    from irm_lite.llamacpp.parallel import SEQUENCES, n_ctx_for

    with Runtime(gguf, irm=run.irm, n_ctx=n_ctx_for(room_for(material)), n_sequences=SEQUENCES) as runtime:
        return scores_of(hear_all(runtime, vector, material, ("base", "vector"), on_progress), material)


def hear_in_transformers(
    run: "TrainedRun", steered: Mapping[Steering, Any], material: Material, on_progress: Progress = unwatched
) -> dict[Steering, Heard]:
    """What the run's base says under an IRM, a vector or nothing."""
    from contextlib import nullcontext
    from functools import partial

    from irm_lite.base.speaker import BaseSpeaker
    from irm_lite.steering.injection import inject

    base = BaseSpeaker(run.base, on_progress=on_progress)

    def speaker(what: Any) -> Speaker:
        return BaseSpeaker(run.base, nullcontext if what is None else partial(inject, run.base.model, what), on_progress)

    return {name: hear(speaker(what), base, material) for name, what in steered.items()}


def score_export(
    run: "TrainedRun", result: "ExportResult", extent: Extent, on_progress: Progress = unwatched
) -> tuple[dict[Steering, Score], str | None]:
    """The score of a vector that was just exported; it goes into the run's fidelity.json too if the vector is the run's own.

    Empty where no questions are to be asked, and where it fails, which is told beside it: the export shall not be lost by it.
    Raises Interrupted alone.
    """
    if extent.questions == 0:
        return {}, None
    try:
        scores = score_vector(run, result.vector, result.gguf, extent, on_progress)
    except Interrupted:
        raise
    except IrmLiteError as error:
        return {}, f"no score of text ({error})"
    if result.path.absolute() == run.directory.default_vector.absolute():
        keep_figures(run.directory, {**kept_figures(run.directory), "score": scores_document(scores)})
    return scores, None


def scores_document(scores: Mapping[Steering, Score]) -> dict[str, Any] | None:
    """For JSON: each steering's; None where nothing was scored."""
    return {name: each.to_dict() for name, each in scores.items()} or None
