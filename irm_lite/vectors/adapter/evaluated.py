"""What `eval` measures of adapters: beside the IRM on held-out answers, on neutral ones, and the score of what they write."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irm_lite.base.fingerprint import Match, fingerprint_gguf
from irm_lite.core.errors import InputError
from irm_lite.core.files.gguf_header import read_header
from irm_lite.core.types import Progress, unwatched
from irm_lite.llamacpp.likelihood import context_for
from irm_lite.llamacpp.prompts import PromptCheck
from irm_lite.runs.trained import neutral_samples
from irm_lite.scoring.hearing import Heard, hear
from irm_lite.scoring.material import Extent, Material
from irm_lite.scoring.score import Score
from irm_lite.steering.adapter import Adapter
from irm_lite.steering.control_vector import parse_vector_argument
from irm_lite.vectors.agreement_check import disagreement_on
from irm_lite.vectors.fidelity.comparing import compared
from irm_lite.vectors.fidelity.comparison import Comparison
from irm_lite.vectors.fidelity.generations import Generations
from irm_lite.vectors.fidelity.steerings import SteeredRuntime, Steering, steerable
from irm_lite.vectors.prompt_check import prompts_on
from irm_lite.vectors.scored import generations_of, material_of, room_for, scores_of
from irm_lite.vectors.speakers import LlamaCppSpeaker

if TYPE_CHECKING:
    from irm_lite.llamacpp import Runtime
    from irm_lite.runs.trained import TrainedRun


@dataclass(frozen=True)
class AdapterEvaluation:
    """Of adapters that work together, in llama.cpp: the tone's answers, neutral ones, and what is written."""

    sources: tuple[str, ...]
    aligned: Comparison
    neutral: Comparison
    generations: Generations | None  # None: no questions were asked
    matches: list[Match]
    scores: dict[Steering, Score] = field(default_factory=dict)  # of base and adapter; empty: no questions were asked
    prompts: PromptCheck = field(default_factory=PromptCheck)  # of the run against llama-server's on the GGUF
    disagreement: str | None = None  # of transformers and llama.cpp on the GGUF

    def to_dict(self) -> dict[str, Any]:
        return {
            "sources": list(self.sources),
            "fidelity": self.aligned.to_dict()["fidelity"],
            "aligned": self.aligned.to_dict(),
            "neutral": self.neutral.to_dict(),
            "generations": self.generations.to_dict() if self.generations else None,
            "score": self.scores["adapter"].to_dict() if self.scores else None,
            "base_score": self.scores["base"].to_dict() if self.scores else None,
        }


def require_adapters(run: "TrainedRun", sources: Sequence[str], gguf: Path | None) -> Path:
    """The GGUF that these adapters, PATH[:SCALE] each, can be measured on. Raises InputError where there is none, VectorError where
    one does not fit it."""
    gguf = gguf or run.gguf_path
    if gguf is None:
        raise InputError("adapters are measured in llama.cpp", "name a .gguf of the base with --gguf")
    header = read_header(gguf)
    for source in sources:
        Adapter.load(parse_vector_argument(source)[0]).require_fit(header, fingerprint_gguf(header))
    return gguf


def evaluate_adapters(
    run: "TrainedRun",
    sources: Sequence[str],
    gguf: Path | None,
    extent: Extent,
    on_progress: Progress = unwatched,
    allow_disagreement: bool = False,
) -> AdapterEvaluation:
    """Adapters, PATH[:SCALE] each, on the run's GGUF or another one. Raises InputError where there is none, VectorError where one
    does not fit, and as `evaluate_run` does where llama.cpp makes another model of the file."""
    from irm_lite.llamacpp import Runtime
    from irm_lite.llamacpp.adapters import at_work
    from irm_lite.llamacpp.parallel import SEQUENCES, n_ctx_for

    gguf = require_adapters(run, sources, gguf)
    prompts, disagreement = prompts_on(run, gguf), disagreement_on(run, gguf, allowed=allow_disagreement)
    held_out, neutral = run.held_out, neutral_samples(run)
    material = material_of(run, extent) if extent.questions != 0 else None
    n_ctx = max(context_for([*held_out, *neutral]), 512, n_ctx_for(room_for(material)) if material else 0)
    with (
        Runtime(gguf, irm=run.irm, n_ctx=n_ctx, n_sequences=SEQUENCES) as runtime,
        at_work(runtime, sources) as loaded,
        steerable(runtime, None, loaded) as steered,
    ):
        aligned, side_effect = (
            compared(steered, samples, on_progress, students=("adapter",))["adapter"] for samples in (held_out, neutral)
        )
        heard = {} if material is None else _heard(runtime, steered, material, on_progress)
        matches = [adapter.match for adapter, _ in loaded]
    return AdapterEvaluation(
        tuple(sources),
        aligned,
        side_effect,
        generations_of(heard, material),
        matches,
        scores_of(heard, material) if material else {},
        prompts,
        disagreement,
    )


def score_adapters(
    run: "TrainedRun", sources: Sequence[str], gguf: Path | None, extent: Extent, on_progress: Progress = unwatched
) -> Score:
    """The score alone of what these adapters write. Raises as `evaluate_adapters` does."""
    from irm_lite.llamacpp import Runtime
    from irm_lite.llamacpp.adapters import at_work
    from irm_lite.llamacpp.parallel import SEQUENCES, n_ctx_for

    gguf, material = require_adapters(run, sources, gguf), material_of(run, extent)
    with (
        Runtime(gguf, n_ctx=n_ctx_for(room_for(material)), n_sequences=SEQUENCES) as runtime,
        at_work(runtime, sources) as loaded,
        steerable(runtime, None, loaded) as steered,
    ):
        return scores_of(_heard(runtime, steered, material, on_progress), material)["adapter"]


def _heard(runtime: "Runtime", steered: SteeredRuntime, material: Material, on_progress: Progress) -> dict[Steering, Heard]:
    base = LlamaCppSpeaker(runtime, lambda: steered.steer("base"), on_progress)
    changed = LlamaCppSpeaker(runtime, lambda: steered.steer("adapter"), on_progress)
    return {"base": hear(base, base, material), "adapter": hear(changed, base, material)}
