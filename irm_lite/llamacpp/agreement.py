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

import psutil
import torch
from torch.nn import functional as F

from irm_lite.base.fingerprint import UNQUANTISED, fingerprint_gguf
from irm_lite.base.forward import answer_logits
from irm_lite.base.load import Base
from irm_lite.base.streamed import streamed_answer_logits
from irm_lite.core.errors import IrmLiteError
from irm_lite.core.files.atomic import write_text
from irm_lite.core.files.paths import cache_folder
from irm_lite.core.files.reading import read_json
from irm_lite.data.dataset import Example
from irm_lite.data.encoding import Sample
from irm_lite.data.packing import pack
from irm_lite.llamacpp.likelihood import context_for, llamacpp_log_probabilities
from irm_lite.llamacpp.runtime import Runtime
from irm_lite.steering.likelihood import kl

_PARAGRAPH = (
    "Why is the sky blue? In 1871 Lord Rayleigh showed that air scatters light of short wavelengths 5.5 times as strongly as "
    "long ones; I'm sure you've heard it.\n\nThe sun's own light, at noon, is nearly white: mix all of it and you see white. "
    'def scatter(x):\n    return x ** -4  # "blue"\n'
)
_BESIDE = 2 << 30  # bytes: a block and the head in float32, and what llama.cpp takes beside the weights
_LONGEST = 256  # tokens of a sample: all logits of what is compared are held
_SAMPLES = 3  # of the data beside the paragraph: some hundred tokens are enough to see another graph
_MAX_KEPT = 1 << 20  # bytes of what is remembered
_FIELDS: dict[str, Callable[[Any], Any]] = {
    "kl": float,
    "nll_transformers": float,
    "nll_llamacpp": float,
    "tokens": int,
    "explained": float,
}

# KL a token that is explained, in nats. Measured (docs/log.md): the demo's Q4_1 file read unquantised 0.004, its base in NF4 0.38.
_QUANTISED_BASE, _OTHER_FILE, _QUANTISED_FILE, _HALF, _SAME = 1.0, 0.3, 0.05, 0.02, 1e-4


@dataclass(frozen=True)
class Agreement:
    """KL(llama.cpp || transformers) and NLL in nats a token, over `tokens` tokens. `explained`: the KL that quantisation allows."""

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
    """Compare transformers with llama.cpp on `gguf`; remembered by file and base.

    A base that was read from a GGUF is read from it once more, unquantised and block by block, since what 4 bits lose would hide
    a whole other graph (docs/log.md); of a folder the base itself is compared, into which nothing may be injected.
    Raises BaseModelError or InputError where llama.cpp cannot load the file.
    """
    key = _key(base, gguf)
    known = _remembered().get(key)
    if known is not None:
        return known
    compared = [_paragraph(base), *[sample for sample in samples if len(sample.ids) <= _LONGEST][:_SAMPLES]]
    row = pack(compared)
    with torch.no_grad():
        logits = streamed_answer_logits(base.gguf_path, row) if base.gguf_path else answer_logits(base.model, row)
    in_transformers = F.log_softmax(logits.float().cpu(), dim=-1)
    with Runtime(gguf, n_ctx=context_for(compared), n_gpu_layers=0) as runtime:
        in_llamacpp = torch.cat([llamacpp_log_probabilities(runtime, sample) for sample in compared])
    shared = min(in_transformers.shape[1], in_llamacpp.shape[1])  # rows that pad a vocabulary are never given
    p, q = in_llamacpp[:, :shared], in_transformers[:, :shared]
    found = Agreement(
        kl(p, q).mean().item(),
        F.nll_loss(q, row["labels"]).item(),
        F.nll_loss(p, row["labels"]).item(),
        len(row["labels"]),
        _explained(base, gguf),
    )
    _remember(key, found)
    return found


def disagreement(base: Base, gguf: Path, samples: Sequence[Sample]) -> str | None:
    """What is to be said of a base and a file, in a line; None where both runtimes run one model."""
    size, free = gguf.stat().st_size, psutil.virtual_memory().available
    if free < 2 * size + _BESIDE:
        return f"transformers and llama.cpp were not compared on {gguf.name}: too little memory is free ({free / 1e9:.1f} GB)"
    try:
        return agreement(base, gguf, samples).warning(gguf)
    except IrmLiteError as error:
        return f"transformers and llama.cpp cannot be compared on {gguf.name} ({error})"


def _paragraph(base: Base) -> Sample:
    ids = list(base.tokenizer(_PARAGRAPH)["input_ids"])
    return Sample(ids, 1, Example((), _PARAGRAPH, "a fixed paragraph"))


def _explained(base: Base, gguf: Path) -> float:
    """What quantisation, and the number format, may make of it, in nats a token."""
    files = {gguf.resolve()} | ({base.gguf_path.resolve()} if base.gguf_path else set())
    quantised = any(fingerprint_gguf(file).quantisation not in UNQUANTISED for file in files)
    if base.gguf_path is None and base.plan.quant != "none":
        return _QUANTISED_BASE
    if quantised:
        return _OTHER_FILE if len(files) > 1 else _QUANTISED_FILE
    return _SAME if base.gguf_path or base.plan.dtype == "float32" else _HALF


def _key(base: Base, gguf: Path) -> str:
    """What the figure depends on: the files as they are, or the base and how it was loaded; the libraries that run them."""
    import importlib.metadata

    libraries = [importlib.metadata.version(name) for name in ("llama-cpp-python", "transformers")]
    loaded = (base.fingerprint, base.name, base.plan.quant, base.plan.dtype)
    return "|".join(map(str, (*_file(gguf), *(_file(base.gguf_path) if base.gguf_path else loaded), *libraries)))


def _file(path: Path) -> tuple[object, ...]:
    stat = path.stat()
    return path.resolve(), stat.st_size, stat.st_mtime_ns


def _remembered() -> dict[str, Agreement]:
    """By key; nothing where there is nothing that can be read."""
    try:
        found = read_json(cache_folder() / "agreement.json", _MAX_KEPT)
        return {str(key): Agreement(**{name: kind(each[name]) for name, kind in _FIELDS.items()}) for key, each in found.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError):
        return {}


def _remember(key: str, found: Agreement) -> None:
    kept = dict([*_remembered().items()][-200:]) | {key: found}
    with suppress(OSError):  # then it is measured again
        write_text(
            cache_folder() / "agreement.json", json.dumps({name: asdict(each) for name, each in kept.items()}, indent=1) + "\n"
        )
