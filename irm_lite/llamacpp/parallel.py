"""Several texts at once in one llama.cpp context: answers written side by side, NLLs of answers that share their prompt.

On a CPU a token of its own costs the whole model's way through memory; with others beside it, little more than its arithmetic.
What is written can differ in a near tie from what is written alone: other shapes of a product, other last bits.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from irm_lite.core.errors import InputError
from irm_lite.core.log_probabilities import log_softmax
from irm_lite.core.types import DoubleArray, FloatArray, Progress, unwatched
from irm_lite.data.encoding import Sample
from irm_lite.data.packing import in_common
from irm_lite.llamacpp.likelihood import answer_nll
from irm_lite.llamacpp.sampling import Sampling, sampler_chain

if TYPE_CHECKING:
    from irm_lite.llamacpp.runtime import Placed, Runtime

SIDE_BY_SIDE = 8  # more gain nothing on a CPU (docs/log.md), and each takes its part of the cache
SEQUENCES = SIDE_BY_SIDE + 1  # of a context: one keeps what the texts begin with
ONE_BY_ONE = 2  # the same where a text is read after another
_LEAST_START = 4  # tokens in common that are worth a call of their own


def n_ctx_for(longest: int, texts: int = SIDE_BY_SIDE) -> int:
    """A context in which so many texts of at most `longest` tokens are side by side."""
    return texts * (longest + 1) + 8


@dataclass
class Written:
    """A text that was written, with the token that ends the turn if it came in time."""

    tokens: list[int]
    nll: float | None  # of all tokens but that one, in nats, as the runtime was steered; None: nobody asked


@dataclass
class _Writing:
    """A text that is being written in a sequence of the context."""

    chain: Any
    position: int  # of the token that comes next
    text: Written


class _SharedPrefix:
    """What several texts begin with (a system prompt, as a rule), read once as the runtime is steered now, and gone on from. The
    context's last sequence holds it: the cells of its cache are shared, not copied. `sequences` are those left for the texts."""

    def __init__(self, runtime: "Runtime", texts: Sequence[Sequence[int]], most: int) -> None:
        """`most`: tokens of the start at the most. A context of one sequence keeps nothing."""
        self._runtime, self._holder = runtime, runtime.n_sequences - 1
        self.sequences = max(1, self._holder)
        length = in_common(texts, most) if self._holder and len(texts) > 1 else 0
        self.length = length if length >= _LEAST_START else 0
        runtime.begin()
        _decode_all(runtime, [(texts[0][at], at, self._holder) for at in range(self.length)], self.length)

    def begin(self) -> None:
        """Forget all but the start."""
        self._runtime.begin(self._holder if self.length else None)

    def into(self, sequence: int) -> None:
        """Let an empty sequence begin with the start: `length` tokens."""
        if self.length:
            self._runtime.share([sequence], self._holder)


def generate_together(
    runtime: "Runtime",
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    sampling: Sampling | None = None,
    on_progress: Progress = unwatched,
    measured: bool = False,
) -> list[Written]:
    """What follows each prompt as the runtime is steered now; `measured`: with its NLL. What all prompts begin with is read once.

    Text n is drawn with the seed of `sampling` (default: greedy) plus n, so that no text depends on those beside it. Raises
    InputError where a prompt leaves no room in the context.
    """
    sampling = sampling or Sampling()
    longest = max(map(len, prompts), default=0) + max_new_tokens
    if longest > runtime.n_ctx:
        raise InputError(f"{longest} tokens do not fit into the context of {runtime.n_ctx}", "ask for fewer tokens")
    start = _SharedPrefix(runtime, prompts, min(map(len, prompts), default=0) - 1)
    side_by_side = min(start.sequences, runtime.n_ctx // longest) if longest else 1
    done = [Written([], 0.0 if measured else None) for _ in prompts]
    waiting = list(enumerate(prompts))[::-1]
    writing: dict[int, _Writing] = {}
    with ExitStack() as chains:
        while waiting or writing:
            for sequence in range(side_by_side):
                if waiting and sequence not in writing:
                    number, prompt = waiting.pop()
                    own = replace(sampling, seed=(sampling.seed + number) % 2**32)
                    chain = chains.enter_context(sampler_chain(own, prompt, runtime.model.n_vocabulary, runtime.n_ctx))
                    start.into(sequence)
                    row = _read(runtime, prompt, sequence, start.length)
                    writing[sequence] = _Writing(chain, len(prompt), done[number])
                    _choose(runtime, writing[sequence], row)
            for sequence, each in list(writing.items()):
                if len(each.text.tokens) == max_new_tokens or runtime.model.ends_turn(each.text.tokens[-1]):
                    del writing[sequence]
                    runtime.drop(sequence)
                    on_progress(len(prompts) - len(waiting) - len(writing), len(prompts), "generating")
            _step(runtime, writing)
    return done


def _read(runtime: "Runtime", prompt: Sequence[int], sequence: int, first: int) -> int:
    """Take in a prompt from its token `first` on; gives the row of its last token in the batch."""
    row = 0
    for at in range(first, len(prompt), runtime.n_batch):
        part = prompt[at : at + runtime.n_batch]
        wanted = np.zeros(len(part), dtype=np.bool_)
        wanted[-1] = at + len(part) == len(prompt)
        runtime.decode([(token, at + place, sequence) for place, token in enumerate(part)], wanted, keep=False)
        row = len(part) - 1
    return row


def _step(runtime: "Runtime", writing: dict[int, _Writing]) -> None:
    """The newest token of each text through the graph, and the next one chosen."""
    if not writing:
        return
    placed = [(each.text.tokens[-1], each.position, sequence) for sequence, each in writing.items()]
    runtime.decode(placed, np.ones(len(placed), dtype=np.bool_), keep=False)
    for row, each in enumerate(writing.values()):
        _choose(runtime, each, row)
        each.position += 1


def _choose(runtime: "Runtime", writing: _Writing, row: int) -> None:
    """The token that comes next, after the batch's token of this row."""
    token = runtime.sample(writing.chain, row)
    text = writing.text
    text.tokens.append(token)
    if text.nll is not None and not runtime.model.ends_turn(token):
        text.nll += runtime.nll(token, row)


def nll_together(runtime: "Runtime", samples: Sequence[Sample], on_progress: Progress = unwatched) -> DoubleArray:
    """(N, 2): each answer's tokens and the sum of their NLL in nats, as the runtime is steered at the moment. Reads and raises as
    `log_probabilities_together` does."""
    found = []
    for sample, log_probs in zip(samples, log_probabilities_together(runtime, samples), strict=True):
        found.append(answer_nll(log_probs, sample))
        on_progress(len(found), len(samples), "measuring")
    return np.array(found, dtype=np.float64).reshape(-1, 2)


def log_probabilities_together(runtime: "Runtime", samples: Sequence[Sample]) -> Iterator[Tensor]:
    """Log-probabilities (A, V), float32, of each sample's answer, as the runtime is steered when the first is asked for.

    What all samples begin with goes through the model once, and so does what neighbours have in common, as the answers to one
    question have. Raises InputError where a sample exceeds the context.
    """
    texts = [sample.ids for sample in samples]
    longest = max(map(len, texts), default=0)
    if longest > runtime.n_ctx:
        raise InputError(f"{longest} tokens do not fit into the context of {runtime.n_ctx}", "use shorter samples")
    start = _SharedPrefix(runtime, texts, min((sample.answer_start for sample in samples), default=0) - 1)
    for group in _groups(samples, runtime, start.sequences if runtime.takes_unequal else 1):
        common = in_common([sample.ids for sample in group], min(len(sample.ids) for sample in group) - 1)
        start.begin()
        start.into(0)
        shared = _read_wanted(runtime, group[0].ids[:common], start.length, group[0].answer_start - 1)
        runtime.share(range(1, len(group)))
        rests: list[Placed] = []
        for sequence, sample in enumerate(group):
            rests += [(token, common + at, sequence) for at, token in enumerate(sample.ids[common:-1])]
        logits = _decode_all(runtime, rests)
        at = 0
        for sample in group:
            n_own = len(sample.ids) - 1 - common
            rows = np.concatenate([shared, logits[at : at + n_own]])
            at += n_own
            yield log_softmax(torch.from_numpy(rows))


def _groups(samples: Sequence[Sample], runtime: "Runtime", side_by_side: int) -> Iterator[list[Sample]]:
    """Neighbours of one prompt, as many as fit side by side."""
    for prompt, each in groupby(samples, lambda sample: sample.ids[: sample.answer_start]):
        group: list[Sample] = []
        for sample in each:
            full = len(prompt) + sum(next_one.n_answer for next_one in (*group, sample)) > runtime.n_ctx
            if group and (full or len(group) == side_by_side):
                yield group
                group = []
            group.append(sample)
        yield group


def _read_wanted(runtime: "Runtime", ids: Sequence[int], start: int, first: int) -> FloatArray:
    """Tokens from `start` on into sequence 0; the logits from position `first` on."""
    return _decode_all(runtime, [(token, start + at, 0) for at, token in enumerate(ids[start:])], first - start)


def _decode_all(runtime: "Runtime", placed: "Sequence[Placed]", first: int = 0) -> FloatArray:
    """In micro-batches, the logits from row `first` on."""
    found = [np.empty((0, runtime.model.n_vocabulary), dtype=np.float32)]
    for at in range(0, len(placed), runtime.n_batch):
        part = placed[at : at + runtime.n_batch]
        found.append(runtime.decode(part, np.arange(at, at + len(part)) >= first))
    return np.concatenate(found)
