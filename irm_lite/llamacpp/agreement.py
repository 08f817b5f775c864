"""Is it one model? The same token ids through transformers' base and through llama.cpp on the GGUF, compared.

A key or a tensor that one of the two passes over makes another model of the file: then the IRM is trained on one and steers the
other, and no fidelity shows it, since that is measured inside llama.cpp alone. Quantisation explains a part of what is
between them; what is beyond it is told.
"""

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from irm_lite.base.fingerprint import UNQUANTISED, fingerprint_gguf
from irm_lite.base.forward import answer_logits
from irm_lite.base.load import Base
from irm_lite.core.files.atomic import write_text
from irm_lite.core.files.paths import cache_folder
from irm_lite.core.files.reading import read_json
from irm_lite.data.dataset import Example
from irm_lite.data.encoding import Sample
from irm_lite.data.packing import pack
from irm_lite.llamacpp.likelihood import context_for, llamacpp_log_probabilities
from irm_lite.llamacpp.runtime import Runtime

_PARAGRAPH = (
    "Why is the sky blue? In 1871 Lord Rayleigh showed that air scatters light of short wavelengths 5.5 times as strongly as "
    "long ones; I'm sure you've heard it.\n\nThe sun's own light, at noon, is nearly white: mix all of it and what you see is white. "
    'def scatter(x):\n    return x ** -4  # "blue"\n'
)
_SAMPLES = 3  # of the data beside the paragraph: some hundred tokens are enough to see another graph
_MAX_KEPT = 1 << 20  # bytes of what is remembered
_FIELDS: dict[str, Callable[[Any], Any]] = {
    "kl": float,
    "nll_transformers": float,
    "nll_llamacpp": float,
    "tokens": int,
    "explained": float,
}

# KL a token that is explained, in nats (docs/log.md has the measurements): the demo's and Qwen2.5-0.5B's files against their bases.
_QUANTISED_BASE, _QUANTISED_FILE, _HALF, _SAME = 0.3, 0.05, 0.01, 1e-4


@dataclass(frozen=True)
class Agreement:
    """KL(llama.cpp || transformers) and NLL in nats a token, over `tokens` tokens. `explained`: what quantisation may make of it."""

    kl: float
    nll_transformers: float
    nll_llamacpp: float
    tokens: int
    explained: float

    def warning(self, gguf: Path) -> str | None:
        """What is to be said, or None where the two are one model."""
        if self.kl <= self.explained:
            return None
        return (
            f"transformers and llama.cpp run {gguf.name} as two models: KL {self.kl:.3g} nats a token, of which quantisation "
            f"explains {self.explained:g} (NLL {self.nll_transformers:.3f} and {self.nll_llamacpp:.3f}); what is trained in one "
            "may do something else in the other"
        )


def agreement(base: Base, gguf: Path, samples: Sequence[Sample]) -> Agreement:
    """Compare the base, which nothing is injected into, with llama.cpp on `gguf`; remembered by file and base.

    Raises BaseModelError or InputError where llama.cpp cannot load the file.
    """
    key = _key(base, gguf)
    known = _remembered().get(key)
    if known is not None:
        return known
    compared = [_paragraph(base), *samples[:_SAMPLES]]
    kl, ours, theirs, tokens = 0.0, 0.0, 0.0, 0
    with torch.no_grad(), Runtime(gguf, n_ctx=context_for(compared), n_gpu_layers=0) as runtime:
        for sample in compared:
            row = pack([sample])
            in_transformers = F.log_softmax(answer_logits(base.model, row).float().cpu(), dim=-1)
            in_llamacpp = llamacpp_log_probabilities(runtime, sample)
            shared = min(in_transformers.shape[1], in_llamacpp.shape[1])  # rows that pad a vocabulary are never given
            p, q = in_llamacpp[:, :shared], in_transformers[:, :shared]
            kl += (p.exp() * (p - q)).sum().item()
            ours += F.nll_loss(q, row["labels"], reduction="sum").item()
            theirs += F.nll_loss(p, row["labels"], reduction="sum").item()
            tokens += len(row["labels"])
    found = Agreement(kl / tokens, ours / tokens, theirs / tokens, tokens, _explained(base, gguf))
    _remember(key, found)
    return found


def _paragraph(base: Base) -> Sample:
    ids = list(base.tokenizer(_PARAGRAPH)["input_ids"])
    return Sample(ids, 1, Example((), _PARAGRAPH, "a fixed paragraph"))


def _explained(base: Base, gguf: Path) -> float:
    if base.plan.quant != "none":
        return _QUANTISED_BASE
    if fingerprint_gguf(gguf).quantisation not in UNQUANTISED:
        return _QUANTISED_FILE
    return _SAME if base.plan.dtype == "float32" else _HALF


def _key(base: Base, gguf: Path) -> str:
    """What the figure depends on: the file as it is, the base and how it was loaded, the libraries that run them."""
    import importlib.metadata

    stat = gguf.stat()
    libraries = [importlib.metadata.version(name) for name in ("llama-cpp-python", "transformers")]
    parts = (
        gguf.resolve(),
        stat.st_size,
        stat.st_mtime_ns,
        base.fingerprint,
        base.name,
        base.plan.quant,
        base.plan.dtype,
        *libraries,
    )
    return "|".join(map(str, parts))


def _remembered() -> dict[str, Agreement]:
    """By key; nothing where there is nothing that can be read."""
    try:
        found = read_json(cache_folder() / "agreement.json", _MAX_KEPT)
        return {str(key): Agreement(**{name: kind(each[name]) for name, kind in _FIELDS.items()}) for key, each in found.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _remember(key: str, found: Agreement) -> None:
    kept = dict([*_remembered().items()][-200:]) | {key: found}
    with suppress(OSError):  # then it is measured again
        write_text(
            cache_folder() / "agreement.json", json.dumps({name: asdict(each) for name, each in kept.items()}, indent=1) + "\n"
        )
