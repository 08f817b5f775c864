"""NLL, KL and fidelity over the answers of held-out samples, in transformers and in llama.cpp."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from irm_lite.base_model import Base
from irm_lite.chat_format import Sample
from irm_lite.control_vector import ControlVector
from irm_lite.fingerprint import fingerprint_gguf
from irm_lite.injection import inject
from irm_lite.irm import IRM
from irm_lite.packing import answer_logits, pack, rows

if TYPE_CHECKING:
    from irm_lite.llamacpp import Runtime
    from irm_lite.trained import TrainedRun

_ROW_TOKENS = 512  # three sets of log-probabilities over the vocabulary are held for a row


@dataclass(frozen=True)
class Comparison:
    """Base, IRM and export on the same answers, in one runtime on the same weights. NLL and KL in nats a token."""

    tokens: int
    nll_base: float
    nll_irm: float
    nll_vector: float
    kl_irm_base: float
    kl_irm_vector: float

    @property
    def fidelity(self) -> float:
        """1 - KL(IRM || export) / KL(IRM || base): 1 where the export does what the IRM does, 0 where it does nothing."""
        return 1.0 - self.kl_irm_vector / self.kl_irm_base if self.kl_irm_base > 0 else 0.0

    def to_dict(self) -> dict[str, float]:
        return {**asdict(self), "fidelity": self.fidelity}


def log_probabilities(base: Base, row: dict[str, Tensor], steer: "IRM | ControlVector | None") -> Tensor:
    """Log-probabilities (A, V), float32, at the answer positions of one packed row, steered or not."""
    with ExitStack() as stack:
        if steer is not None:
            stack.enter_context(inject(base.model, steer))
        return F.log_softmax(answer_logits(base.model, row).float(), dim=-1)


@torch.no_grad()
def compare(base: Base, irm: IRM, vector: ControlVector, samples: Iterable[Sample]) -> Comparison:
    """Measure base, IRM and vector on the samples' answers, in transformers."""
    sums = torch.zeros(5, dtype=torch.float64)
    tokens = 0
    for group in rows(list(samples), _ROW_TOKENS):
        row = pack(group)
        plain = log_probabilities(base, row, None)
        taught = log_probabilities(base, row, irm)
        static = log_probabilities(base, row, vector)
        labels = row["labels"].to(plain.device)
        nlls = [F.nll_loss(each, labels, reduction="sum") for each in (plain, taught, static)]
        divergences = [kl(taught, plain).sum(), kl(taught, static).sum()]
        sums += torch.stack([*nlls, *divergences]).double().cpu()
        tokens += len(labels)
    return Comparison(tokens, *(sums / tokens).tolist())


def kl(p: Tensor, q: Tensor) -> Tensor:
    """KL(p || q) in nats, (..., V) log-probabilities -> (...)."""
    return (p.exp() * (p - q)).sum(-1)


def llamacpp_log_probabilities(runtime: "Runtime", sample: Sample) -> Tensor:
    """Log-probabilities (A, V), float32, of one sample's answer in llama.cpp, as it is steered at the moment."""
    logits = torch.from_numpy(runtime.logits(sample.ids))
    return F.log_softmax(logits[sample.answer_start - 1 : -1], dim=-1)


def llamacpp_nll(runtime: "Runtime", samples: Iterable[Sample]) -> float:
    """Mean NLL a token, in nats, over the samples' answers in llama.cpp, as it is steered at the moment."""
    total, tokens = 0.0, 0
    for log_probs, labels in _labelled(runtime, samples):
        total += F.nll_loss(log_probs, labels, reduction="sum").item()
        tokens += len(labels)
    return total / tokens


def _labelled(runtime: "Runtime", samples: Iterable[Sample]) -> Iterator[tuple[Tensor, Tensor]]:
    for sample in samples:
        yield llamacpp_log_probabilities(runtime, sample), torch.tensor(sample.ids[sample.answer_start :])


def context_for(samples: Iterable[Sample]) -> int:
    """A llama.cpp context that holds the longest sample."""
    return max(len(sample.ids) for sample in samples) + 8


@dataclass(frozen=True)
class LlamaCppResult:
    """Base and vector on one GGUF in llama.cpp."""

    gguf: str
    nll_base: float
    nll_vector: float


@dataclass(frozen=True)
class Evaluation:
    """What `irm-lite eval` measures."""

    comparison: Comparison
    llamacpp: LlamaCppResult | None
    warning: str | None

    def to_dict(self) -> dict[str, Any]:
        return {"transformers": self.comparison.to_dict(), "llamacpp": asdict(self.llamacpp) if self.llamacpp else None}


def evaluate_run(
    run: "TrainedRun",
    vector: ControlVector,
    gguf: Path | None,
    *,
    on_stage: Callable[[str], None] = lambda stage: None,
) -> Evaluation:
    """Compare a run's base, IRM and a vector on the held-out answers; in llama.cpp too where a GGUF is known."""
    vector.require_fit(run.fingerprint, run.config.model)  # before anything large is loaded
    if gguf is not None:
        vector.require_fit(fingerprint_gguf(gguf), gguf.name)
    on_stage(f"loading {run.config.model}")
    samples = run.held_out
    on_stage(f"measuring {len(samples)} held-out answers in transformers")
    comparison = compare(run.base, run.irm, vector, samples)
    gguf = gguf or run.base.gguf_path
    if gguf is None:
        return Evaluation(comparison, None, None)
    from irm_lite.llamacpp import Runtime

    on_stage(f"measuring them in llama.cpp on {gguf.name}")
    with Runtime(gguf, n_ctx=context_for(samples), all_logits=True) as runtime:
        warning = runtime.set_vector(vector)
        nll_vector = llamacpp_nll(runtime, samples)
        runtime.set_vector(None)
        nll_base = llamacpp_nll(runtime, samples)
    return Evaluation(comparison, LlamaCppResult(str(gguf), nll_base, nll_vector), warning)
