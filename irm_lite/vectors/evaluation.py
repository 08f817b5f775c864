"""Evaluation of a run and a vector on held-out answers: NLL, KL and fidelity, the side effect, generated text and its score."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irm_lite.base.fingerprint import Match, fingerprint_gguf
from irm_lite.core.machine.give_way import giving_way
from irm_lite.core.types import Progress, unwatched
from irm_lite.data.encoding import Sample
from irm_lite.llamacpp.likelihood import context_for
from irm_lite.llamacpp.prompts import PromptCheck
from irm_lite.runs.trained import neutral_samples
from irm_lite.scoring.hearing import Heard
from irm_lite.scoring.material import Extent, Material
from irm_lite.scoring.score import Score
from irm_lite.steering.control_vector import ControlVector
from irm_lite.vectors.agreement_check import disagreement_on
from irm_lite.vectors.fidelity.comparison import Comparison
from irm_lite.vectors.fidelity.generations import Generations
from irm_lite.vectors.fidelity.in_llamacpp import compare_in_llamacpp
from irm_lite.vectors.fidelity.in_transformers import compare
from irm_lite.vectors.fidelity.steerings import STEERINGS, Steering
from irm_lite.vectors.prompt_check import prompts_on
from irm_lite.vectors.scored import (
    generations_of,
    hear_all,
    hear_in_transformers,
    material_of,
    room_for,
    scores_document,
    scores_of,
)

if TYPE_CHECKING:
    from irm_lite.runs.trained import TrainedRun


def measure(
    run: "TrainedRun", vector: ControlVector, gguf: Path | None, samples: Sequence[Sample], on_progress: Progress = unwatched
) -> Comparison:
    """Base, IRM and vector on these answers: in llama.cpp where there is a GGUF of the base, else in transformers."""
    if gguf is None:
        return compare(run.base, run.irm, vector, samples, on_progress)
    from irm_lite.llamacpp import Runtime
    from irm_lite.llamacpp.parallel import ONE_BY_ONE

    with Runtime(gguf, irm=run.irm, n_ctx=context_for(samples), n_sequences=ONE_BY_ONE) as runtime:
        return compare_in_llamacpp(runtime, vector, samples, on_progress)


@dataclass(frozen=True)
class Evaluation:
    """What `irm-lite eval` measures: on the tone's answers, on neutral ones (the side effect), in text, and its score."""

    gguf: Path | None
    aligned: Comparison
    neutral: Comparison
    generations: Generations | None  # None: no questions were asked
    matches: list[Match]  # of the run and of the vector in the GGUF
    scores: dict[Steering, Score] = field(default_factory=dict)  # of base, IRM and vector; empty: no questions were asked
    prompts: PromptCheck = field(default_factory=PromptCheck)  # of the run against llama-server's on the GGUF
    disagreement: str | None = None  # of transformers and llama.cpp on the GGUF

    def to_dict(self) -> dict[str, Any]:
        return {
            "gguf": str(self.gguf) if self.gguf else None,
            "disagreement": self.disagreement,
            "aligned": self.aligned.to_dict(),
            "neutral": self.neutral.to_dict(),
            "generations": self.generations.to_dict() if self.generations else None,
            "prompts": self.prompts.to_dict(),
            "score": scores_document(self.scores),
        }


@giving_way()
def evaluate_run(
    run: "TrainedRun",
    vector: ControlVector,
    gguf: Path | None,
    *,
    extent: Extent | None = None,
    allow_disagreement: bool = False,
    on_stage: Callable[[str], None] = lambda stage: None,
    on_progress: Progress = unwatched,
) -> Evaluation:
    """Compare a run's base, IRM and a vector on held-out answers, in llama.cpp on one GGUF where one is known.

    Raises an InputError where something does not fit, and where llama.cpp makes quite another model of the GGUF than transformers
    of the base, unless that is allowed here or was in training.
    """
    extent = extent or Extent()
    of_run = vector.require_fit(run.fingerprint, run.config.model)  # before anything large is loaded
    matches = [of_run]
    gguf = gguf or run.gguf_path
    if gguf is not None:
        runs_on = fingerprint_gguf(gguf)
        of_gguf = vector.require_fit(runs_on, gguf.name)
        matches = [run.match(runs_on, gguf.name), of_gguf]
        if matches[0].warning and not of_run.warning:
            matches.pop()  # made on one base, they say one thing
    on_stage("reading the samples")
    prompts = PromptCheck() if gguf is None else prompts_on(run, gguf)
    held_out, neutral = run.held_out, neutral_samples(run)
    material = material_of(run, extent) if extent.questions != 0 else None
    if gguf is None:
        on_stage(f"loading {run.config.model}")
        aligned = compare(run.base, run.irm, vector, held_out, on_progress)
        side_effect = compare(run.base, run.irm, vector, neutral, on_progress)
        steered: dict[Steering, Any] = {"base": None, "irm": run.irm, "vector": vector}
        heard = hear_in_transformers(run, steered, material, on_progress) if material else {}
        return replace(_evaluation(None, (aligned, side_effect), matches, material, heard), prompts=prompts)
    from irm_lite.llamacpp import Runtime
    from irm_lite.llamacpp.parallel import SEQUENCES, n_ctx_for

    on_stage(f"comparing transformers and llama.cpp on {gguf.name}")
    told = disagreement_on(run, gguf, allowed=allow_disagreement)
    on_stage(f"measuring on {gguf.name}")
    n_ctx = max(context_for([*held_out, *neutral]), 512, n_ctx_for(room_for(material)) if material else 0)
    with Runtime(gguf, irm=run.irm, n_ctx=n_ctx, n_sequences=SEQUENCES) as runtime:
        aligned = compare_in_llamacpp(runtime, vector, held_out, on_progress)
        side_effect = compare_in_llamacpp(runtime, vector, neutral, on_progress)
        heard = hear_all(runtime, vector, material, STEERINGS, on_progress) if material else {}
    found = _evaluation(gguf, (aligned, side_effect), matches, material, heard)
    return replace(found, prompts=prompts, disagreement=told)


def _evaluation(
    gguf: Path | None,
    compared: tuple[Comparison, Comparison],
    matches: list[Match],
    material: Material | None,
    heard: dict[Steering, Heard],
) -> Evaluation:
    return Evaluation(gguf, *compared, generations_of(heard, material), matches, scores_of(heard, material) if material else {})
