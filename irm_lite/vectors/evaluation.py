"""NLL, KL and fidelity over the answers of held-out samples, in transformers or in llama.cpp."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from irm_lite.base.fingerprint import Match, fingerprint_gguf
from irm_lite.base.load import Base
from irm_lite.core.bootstrap import Interval, interval, resampled_sums
from irm_lite.core.errors import InputError
from irm_lite.core.types import DoubleArray, Progress
from irm_lite.data.dataset import load_dataset
from irm_lite.data.encoding import Sample, encode_all
from irm_lite.data.packing import answer_logits, pack, rows
from irm_lite.data.text_measures import distinct_2
from irm_lite.steering.control_vector import ControlVector
from irm_lite.steering.injection import inject
from irm_lite.steering.irm import IRM

if TYPE_CHECKING:
    from irm_lite.llamacpp import Runtime
    from irm_lite.runs.trained import TrainedRun

_ROW_TOKENS = 512  # three sets of log-probabilities over the vocabulary are held for a row
_COLUMNS = (
    *("tokens", "nll_base", "nll_irm", "nll_vector"),
    *("kl_irm_base", "kl_irm_vector", "kl_base_irm", "kl_base_vector", "top1_agreement"),
)
_NOTHING = 1e-6  # nats a token
_STEERINGS = ("base", "irm", "vector")
Where = Literal["transformers", "llama.cpp"]


@dataclass(frozen=True)
class Comparison:
    """Base, IRM and export on the same answers, in one runtime on the same weights. NLL and KL in nats a token.

    `sums` (N, 9): for each of N samples the number of answer tokens and sums over them, in the order of _COLUMNS.
    """

    measured_in: Where
    sums: DoubleArray

    @cached_property
    def means(self) -> dict[str, float]:
        """Means over the answer tokens of all samples, and the fidelity."""
        return {name: float(value) for name, value in _ratios(self.sums.sum(0)).items()}

    @cached_property
    def intervals(self) -> dict[str, Interval]:
        """95% bootstrap intervals of the same, over samples."""
        return {name: interval(values) for name, values in _ratios(resampled_sums(self.sums)).items()}

    @property
    def tokens(self) -> int:
        return int(self.sums[:, 0].sum())

    @property
    def nll_base(self) -> float:
        return self.means["nll_base"]

    @property
    def nll_irm(self) -> float:
        return self.means["nll_irm"]

    @property
    def nll_vector(self) -> float:
        return self.means["nll_vector"]

    @property
    def kl_irm_base(self) -> float:
        return self.means["kl_irm_base"]

    @property
    def kl_irm_vector(self) -> float:
        return self.means["kl_irm_vector"]

    @property
    def fidelity(self) -> float:
        """1 - KL(IRM || export) / KL(IRM || base): 1 where the export does what the IRM does, 0 where it does nothing."""
        return self.means["fidelity"]

    def to_dict(self) -> dict[str, Any]:
        return {
            "measured_in": self.measured_in,
            "samples": len(self.sums),
            "tokens": self.tokens,
            **self.means,
            "intervals_95": {name: list(each) for name, each in self.intervals.items()},
        }


def _ratios(sums: DoubleArray) -> dict[str, DoubleArray]:
    """Sums (..., 9) -> means a token, and the fidelity, (...)."""
    tokens = sums[..., 0]
    values = {name: sums[..., column] / tokens for column, name in enumerate(_COLUMNS) if column}
    effect, lost = values["kl_irm_base"], values["kl_irm_vector"]
    # An IRM that does nothing is done justice by what does nothing: the ratio would be of rounding errors.
    values["fidelity"] = np.where(effect > _NOTHING, 1.0 - lost / np.maximum(effect, _NOTHING), lost <= _NOTHING)
    return values


def tally(log_probs: Sequence[Tensor], labels: Tensor) -> Tensor:
    """One sample's row of `Comparison.sums`, (9,), from log-probabilities (A, V) of base, IRM and vector."""
    plain, taught, static = log_probs
    nlls = [F.nll_loss(each, labels, reduction="sum").item() for each in log_probs]
    pairs = ((taught, plain), (taught, static), (plain, taught), (plain, static))
    divergences = [kl(p, q).sum().item() for p, q in pairs]
    agreed = (taught.argmax(-1) == static.argmax(-1)).sum().item()
    return torch.tensor([len(labels), *nlls, *divergences, agreed], dtype=torch.float64)


def kl(p: Tensor, q: Tensor) -> Tensor:
    """KL(p || q) in nats, (..., V) log-probabilities -> (...)."""
    return (p.exp() * (p - q)).sum(-1)


def log_probabilities(base: Base, row: dict[str, Tensor], steer: "IRM | ControlVector | None") -> Tensor:
    """Log-probabilities (A, V), float32, at the answer positions of one packed row, steered or not."""
    with ExitStack() as stack:
        if steer is not None:
            stack.enter_context(inject(base.model, steer))
        return F.log_softmax(answer_logits(base.model, row).float(), dim=-1)


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


def llamacpp_log_probabilities(runtime: "Runtime", sample: Sample) -> Tensor:
    """Log-probabilities (A, V), float32, of one sample's answer in llama.cpp, as it is steered at the moment."""
    logits = runtime.logits(sample.ids[:-1], range(sample.answer_start - 1, len(sample.ids) - 1))
    return F.log_softmax(torch.from_numpy(logits), dim=-1)


def llamacpp_nll(runtime: "Runtime", samples: Iterable[Sample]) -> float:
    """Mean NLL a token, in nats, over the samples' answers in llama.cpp, as it is steered at the moment."""
    tokens, nll = answer_nlls(runtime, samples).sum(0)
    return float(nll / tokens)


def answer_nlls(runtime: "Runtime", samples: Iterable[Sample]) -> DoubleArray:
    """(N, 2): each answer's tokens and the sum of their NLL in llama.cpp, as it is steered at the moment."""
    return np.array([answer_nll(llamacpp_log_probabilities(runtime, sample), sample) for sample in samples])


def answer_nll(log_probs: Tensor, sample: Sample) -> tuple[int, float]:
    """An answer's tokens and the sum of their NLL, from log-probabilities (A, V)."""
    labels = torch.tensor(sample.ids[sample.answer_start :])
    return len(labels), F.nll_loss(log_probs, labels, reduction="sum").item()


def context_for(samples: Iterable[Sample]) -> int:
    """A llama.cpp context that holds the longest sample."""
    return max(len(sample.ids) for sample in samples) + 8


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
class Generations:
    """Greedy answers in llama.cpp to the first held-out questions."""

    questions: list[str]
    texts: dict[str, list[str]]  # by "base", "irm", "vector"

    def distinct_2(self) -> dict[str, tuple[float, Interval]]:
        """Different word pairs / all word pairs of an answer, mean over the answers, and its 95% interval.

        After Li et al. 2016 (arXiv 1510.03055), but within each answer: it falls where the text runs in circles. Answers
        of fewer than two words have no pairs and are left out; 0 where all are such.
        """
        found = {}
        for name, texts in self.texts.items():
            shares = np.array([[1.0, distinct_2(text)] for text in texts if len(text.split()) > 1] or [[1.0, 0.0]])
            sums = resampled_sums(shares)
            found[name] = float(shares[:, 1].mean()), interval(sums[:, 1] / sums[:, 0])
        return found

    def to_dict(self) -> dict[str, Any]:
        measured = {name: {"value": value, "interval_95": list(each)} for name, (value, each) in self.distinct_2().items()}
        return {"questions": self.questions, **self.texts, "distinct_2": measured}


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


def neutral_samples(run: "TrainedRun") -> list[Sample]:
    """The shipped neutral answers to held-out questions: what a steered model should leave alone if asked for nothing else."""
    return encode_all(run.tokenizer, load_dataset("neutral").test, run.config.max_length)[0]


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
