"""Is it one model? The same token ids through transformers and through llama.cpp, compared.

A key or a tensor that one of the two passes over makes another model of the files: then the IRM is trained on one and steers the
other, and no fidelity shows it, since that is measured inside llama.cpp alone. Quantisation explains a part of what is
between them; what is beyond it is told, and what is far beyond it is refused. Figures and limits: docs/log.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from irm_lite.base.forward import answer_logits
from irm_lite.base.load import Base, Source, locate
from irm_lite.base.streamed import streamed_answer_logits
from irm_lite.core.errors import BaseModelError, IrmLiteError, RanOut
from irm_lite.core.log_probabilities import kl, log_softmax
from irm_lite.core.machine.available_memory import available_bytes
from irm_lite.data.dataset import Example
from irm_lite.data.encoding import Sample
from irm_lite.data.packing import Row, pack
from irm_lite.llamacpp.agreement_kept import has_run, identity_of_base, identity_of_file, libraries, read_kept, write_kept
from irm_lite.llamacpp.explained import explained
from irm_lite.llamacpp.likelihood import context_for, llamacpp_log_probabilities
from irm_lite.llamacpp.model import Model
from irm_lite.llamacpp.runtime import Runtime

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ALLOW = "--allow-disagreement"
_PARAGRAPH = (
    "Why is the sky blue? In 1871 Lord Rayleigh showed that air scatters light of short wavelengths 5.5 times as strongly as "
    "long ones; I'm sure you've heard it.\n\nThe sun's own light, at noon, is nearly white: mix all of it and you see white. "
    'def scatter(x):\n    return x ** -4  # "blue"\n'
)
_BESIDE = 2 << 30  # bytes: a block and the head in float32, and what llama.cpp takes beside the weights
_SAMPLES, _LAST = 3, 20  # of the data, beside the paragraph, and of each its last tokens: every token costs both runtimes

# KL a token, in nats, that is far beyond what is explained (explained.py).
_FAR_TIMES, _FAR_LEAST, _FAR_MOST = 10.0, 0.5, 1.5


@dataclass(frozen=True)
class Agreement:
    """KL(llama.cpp || transformers) and NLL in nats a token, over `tokens` tokens. `explained`: the KL that quantisation allows."""

    kl: float
    nll_transformers: float
    nll_llamacpp: float
    tokens: int
    explained: float

    @property
    def is_far(self) -> bool:
        """Whether they are so far apart that nothing trained in one can be expected to work in the other."""
        return not self.kl <= max(min(max(_FAR_TIMES * self.explained, _FAR_LEAST), _FAR_MOST), self.explained)  # NaN is

    def warning(self, gguf: Path, source: Source | None = None) -> str | None:
        """What is to be said, or None where the two are one model. `source`: the base's files, if they may be others."""
        if self.kl <= self.explained:
            return None
        own = source is None or (source.gguf is not None and source.gguf.resolve() == gguf.resolve())
        files = gguf.name if source is None or own else f"{(source.gguf or Path(source.place)).name} and {gguf.name}"
        return (
            f"transformers and llama.cpp run {files} as two models: KL {self.kl:.3g} nats a token, of which quantisation "
            f"explains {self.explained:g} (NLL {self.nll_transformers:.3f} and {self.nll_llamacpp:.3f}); what is trained in one "
            "may do something else in the other"
        )


@dataclass(frozen=True)
class Compared:
    """A base as its files are, for transformers. `loaded`: in memory, which is compared where the files cannot be streamed."""

    source: Source
    tokenizer: "PreTrainedTokenizerBase"
    loaded: Base | None = None

    @classmethod
    def of_file(cls, gguf: Path, tokenizer: "PreTrainedTokenizerBase", loaded: Base | None = None) -> "Compared":
        """Of a base that is a GGUF."""
        return cls(locate(str(gguf)), tokenizer, loaded)


def agreement(base: Compared, gguf: Path, samples: Sequence[Sample]) -> Agreement:
    """Compare transformers on the base's files with llama.cpp on `gguf`; remembered by files.

    The files are read unquantised and block by block, since what 4 bits lose would hide a whole other graph. Raises BaseModelError
    or InputError where llama.cpp cannot load the file, or transformers the base; _NotComparable where they cannot be asked.
    """
    key, loaded_key = _keys(base, gguf)
    kept = read_kept()
    known = kept.get(key) or kept.get(loaded_key)
    if known is not None:
        return Agreement(**known)
    free = available_bytes()
    if free < 2 * gguf.stat().st_size + _BESIDE:
        raise _NotComparable(f"too little memory is free: {free / 1e9:.1f} GB")
    compared = [_whole(base.tokenizer(_PARAGRAPH)["input_ids"]), *(_whole(each.ids[-_LAST:]) for each in samples[:_SAMPLES])]
    row = pack(compared)
    in_llamacpp = _in_llamacpp(gguf, compared)  # first: it is refused sooner
    (logits, streamed), loaded = _in_transformers(base, row), base.loaded
    in_transformers = log_softmax(logits.cpu())
    shared = min(in_transformers.shape[1], in_llamacpp.shape[1])  # rows that pad a vocabulary are never given
    p, q = in_llamacpp[:, :shared], in_transformers[:, :shared]
    found = Agreement(
        kl(p, q).mean().item(),
        F.nll_loss(q, row["labels"]).item(),
        F.nll_loss(p, row["labels"]).item(),
        len(row["labels"]),
        explained(
            gguf,
            base.source.gguf,
            in_float32=streamed or (loaded is not None and loaded.plan.dtype == "float32"),
            quantised_base=not streamed and loaded is not None and loaded.plan.quant != "none",
        ),
    )
    write_kept(key if streamed else loaded_key, found.__dict__)
    return found


def disagreement(base: Compared, gguf: Path, samples: Sequence[Sample], *, allowed: bool = False) -> str | None:
    """What is to be said of a base and a file, in a line: they differ, or could not be compared; None where they are one model.

    Raises BaseModelError where llama.cpp cannot load the file, and, unless `allowed`, where the two are far apart.
    """
    try:
        found = agreement(base, gguf, samples)
    except _NotComparable as error:
        return f"transformers and llama.cpp were not compared on {gguf.name} ({error})"
    text = found.warning(gguf, base.source)
    if text is not None and found.is_far and not allowed:
        raise BaseModelError(text, f"check the file, or say {ALLOW} to go on all the same")
    return text


def not_taken(gguf: Path) -> str | None:
    """Why llama.cpp does not load the file, in a line; None where it does, or has been seen to. An architecture that was not
    fuzzed is tried in a process of its own first (trial_load.py). Raises RanOut where it is for want of memory."""
    try:
        if has_run(gguf):
            return None
        Model(gguf, n_gpu_layers=0, repack=False).close()
    except RanOut:
        raise
    except IrmLiteError as error:
        return f"{error.what}; nothing that is trained on it would run there"
    return None


class _NotComparable(Exception):
    """transformers cannot be asked."""


def _in_transformers(base: Compared, row: Row) -> tuple[Tensor, bool]:
    """Logits (A, V), and whether they are of the files, unquantised."""
    place = base.source.gguf or base.source.folder()
    try:
        if place is None:
            raise BaseModelError(f"{base.source.place} is not on this machine")
        return streamed_answer_logits(place, row), True
    except IrmLiteError as error:
        if base.loaded is None:
            raise _NotComparable(str(error)) from None
    with torch.no_grad():
        return answer_logits(base.loaded.model, row), False


def _in_llamacpp(gguf: Path, samples: Sequence[Sample]) -> Tensor:
    """Log-probabilities (A, V)."""
    with Runtime(gguf, n_ctx=context_for(samples), n_gpu_layers=0) as runtime:
        return torch.cat([llamacpp_log_probabilities(runtime, sample) for sample in samples])


def _whole(ids: Sequence[int]) -> Sample:
    """A sample of which every token but the first is looked at, those of a prompt too."""
    return Sample(list(ids), 1, Example((), "", "a text"))


def _keys(base: Compared, gguf: Path) -> tuple[str, str]:
    """What a figure depends on: the files as they are, and the libraries that run them; the second, how the base was loaded too."""
    loaded = base.loaded
    how = (loaded.fingerprint, loaded.plan.quant, loaded.plan.dtype) if loaded else ()
    own, here = base.source.gguf, identity_of_file(gguf)
    key = (here, here if own and own.resolve() == gguf.resolve() else identity_of_base(base.source), libraries())
    return " | ".join(key), " | ".join((*key, *map(str, how)))
