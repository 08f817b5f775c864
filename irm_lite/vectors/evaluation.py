"""NLL, KL and fidelity over the answers of held-out samples, in transformers or in llama.cpp."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from irm_lite.base.fingerprint import Match, fingerprint_gguf
from irm_lite.base.load import Base
from irm_lite.core.errors import InputError
from irm_lite.core.types import Progress
from irm_lite.data.encoding import Sample
from irm_lite.data.packing import pack, rows
from irm_lite.llamacpp.likelihood import context_for, llamacpp_log_probabilities
from irm_lite.runs.trained import neutral_samples
from irm_lite.steering.control_vector import ControlVector
from irm_lite.steering.irm import IRM
from irm_lite.steering.likelihood import kl, log_probabilities
from irm_lite.vectors.comparison import Comparison, Generations

if TYPE_CHECKING:
    from irm_lite.llamacpp import Runtime
    from irm_lite.runs.trained import TrainedRun


_ROW_TOKENS = 512  # three sets of log-probabilities over the vocabulary are held for a row
_STEERINGS = ("base", "irm", "vector")


def tally(log_probs: Sequence[Tensor], labels: Tensor) -> Tensor:
    """One sample's row of `Comparison.sums`, (9,), from log-probabilities (A, V) of base, IRM and vector."""
    plain, taught, static = log_probs
    nlls = [F.nll_loss(each, labels, reduction="sum").item() for each in log_probs]
    pairs = ((taught, plain), (taught, static), (plain, taught), (plain, static))
    divergences = [kl(p, q).sum().item() for p, q in pairs]
    agreed = (taught.argmax(-1) == static.argmax(-1)).sum().item()
    return torch.tensor([len(labels), *nlls, *divergences, agreed], dtype=torch.float64)


def _silent(done: int, of: int, what: str) -> None:
    """Nobody watches."""


@torch.no_grad()
def compare(base: Base, irm: IRM, vector: ControlVector, samples: Iterable[Sample], on_progress: Progress = _silent) -> Comparison:
    """Measure base, IRM and vector on the samples' answers, in transformers."""
    samples, sums = list(samples), []
    for group in rows(samples, _ROW_TOKENS):
        row = pack(group)
        sizes = [sample.n_answer for sample in group]
        steered = [torch.split(log_probabilities(base, row, steer), sizes) for steer in (None, irm, vector)]
        labels = torch.split(row["labels"].to(steered[0][0].device), sizes)
        sums += [tally(each, answer) for each, answer in zip(zip(*steered, strict=True), labels, strict=True)]
        on_progress(len(sums), len(samples), "measuring in transformers")
    return Comparison("transformers", torch.stack(sums).numpy())


def compare_in_llamacpp(
    runtime: "Runtime", vector: ControlVector, samples: Sequence[Sample], on_progress: Progress = _silent
) -> Comparison:
    """The same in llama.cpp, on a runtime that was made with the IRM."""
    sums = []
    with _left_with_the_irm(runtime):
        for sample in samples:
            steered = []
            for name in _STEERINGS:
                _steer(runtime, name, vector)
                steered.append(llamacpp_log_probabilities(runtime, sample))
            sums.append(tally(steered, torch.tensor(sample.ids[sample.answer_start :])))
            on_progress(len(sums), len(samples), "measuring in llama.cpp")
    return Comparison("llama.cpp", torch.stack(sums).numpy())


def _steer(runtime: "Runtime", name: str, vector: ControlVector) -> None:
    assert runtime.dynamic is not None
    runtime.dynamic.enabled = name == "irm"
    runtime.set_vector(vector if name == "vector" else None)


@contextmanager
def _left_with_the_irm(runtime: "Runtime") -> Iterator[None]:
    """Whatever happens, the runtime is left as it was made: the IRM on, no vector."""
    try:
        yield
    finally:
        assert runtime.dynamic is not None
        runtime.dynamic.enabled = True
        runtime.set_vector(None)


def measure(
    run: "TrainedRun", vector: ControlVector, gguf: Path | None, samples: Sequence[Sample], on_progress: Progress = _silent
) -> Comparison:
    """Base, IRM and vector on these answers: in llama.cpp where there is a GGUF of the base, else in transformers."""
    if gguf is None:
        return compare(run.base, run.irm, vector, samples, on_progress)
    from irm_lite.llamacpp import Runtime

    with Runtime(gguf, irm=run.irm, n_ctx=context_for(samples)) as runtime:
        return compare_in_llamacpp(runtime, vector, samples, on_progress)


@dataclass(frozen=True)
class Evaluation:
    """What `irm-lite eval` measures: on the tone's answers, on neutral ones (the side effect), and in text."""

    gguf: Path | None
    aligned: Comparison
    neutral: Comparison
    generations: Generations | None  # llama.cpp alone writes them
    matches: list[Match]  # of the run and of the vector in the GGUF

    def to_dict(self) -> dict[str, Any]:
        return {
            "gguf": str(self.gguf) if self.gguf else None,
            "aligned": self.aligned.to_dict(),
            "neutral": self.neutral.to_dict(),
            "generations": self.generations.to_dict() if self.generations else None,
        }


def evaluate_run(
    run: "TrainedRun",
    vector: ControlVector,
    gguf: Path | None,
    *,
    questions: int = 16,
    new_tokens: int = 48,
    on_stage: Callable[[str], None] = lambda stage: None,
    on_progress: Progress = _silent,
) -> Evaluation:
    """Compare a run's base, IRM and a vector on held-out answers, in llama.cpp on one GGUF where one is known."""
    if questions < 0 or (questions and not 1 <= new_tokens <= 100_000):
        raise InputError(
            f"{questions} questions with {new_tokens} tokens make no sense", "give 0 or more questions, 1 to 100000 tokens"
        )
    matches = [vector.require_fit(run.fingerprint, run.config.model)]  # before anything large is loaded
    gguf = gguf or run.gguf_path
    if gguf is not None:
        runs_on = fingerprint_gguf(gguf)
        matches = [run.match(runs_on, gguf.name), vector.require_fit(runs_on, gguf.name)]
    on_stage("reading the held-out samples")
    held_out, neutral = run.held_out, neutral_samples(run)
    if gguf is None:
        on_stage(f"loading {run.config.model}")
        aligned = compare(run.base, run.irm, vector, held_out, on_progress)
        return Evaluation(None, aligned, compare(run.base, run.irm, vector, neutral, on_progress), None, matches)
    from irm_lite.llamacpp import Runtime

    on_stage(f"measuring on {gguf.name}")
    with Runtime(gguf, irm=run.irm, n_ctx=max(context_for([*held_out, *neutral]), 512)) as runtime:
        aligned = compare_in_llamacpp(runtime, vector, held_out, on_progress)
        beside = compare_in_llamacpp(runtime, vector, neutral, on_progress)
        generations = generate_answers(runtime, vector, held_out[:questions], new_tokens, on_progress)
    return Evaluation(gguf, aligned, beside, generations, matches)


def generate_answers(
    runtime: "Runtime", vector: ControlVector, samples: Sequence[Sample], new_tokens: int, on_progress: Progress = _silent
) -> Generations | None:
    """Greedy answers of base, IRM and vector to the samples' questions; None where there are no questions."""
    asked = [sample for sample in samples if sample.example.messages]
    if not asked:
        return None
    texts: dict[str, list[str]] = {name: [] for name in _STEERINGS}
    with _left_with_the_irm(runtime):
        for name in _STEERINGS:
            _steer(runtime, name, vector)
            for sample in asked:
                tokens = runtime.generate_tokens(sample.ids[: sample.answer_start], max_new_tokens=new_tokens)
                texts[name].append("".join(runtime.model.decode_pieces(tokens)).strip())
                on_progress(sum(map(len, texts.values())), 3 * len(asked), "generating")
    return Generations([sample.example.question for sample in asked], texts)
