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

from irm_lite.core.errors import InputError
from irm_lite.core.log_probabilities import log_softmax
from irm_lite.core.types import DoubleArray, FloatArray, Progress, unwatched
from irm_lite.data.encoding import Sample
from irm_lite.llamacpp.likelihood import answer_nll
from irm_lite.llamacpp.sampling import Sampling, sampler_chain

if TYPE_CHECKING:
    from irm_lite.llamacpp.runtime import Placed, Runtime

SEQUENCES = 8  # side by side: more gain nothing on a CPU (docs/log.md), and each takes its part of the cache


def n_ctx_for(longest: int, sequences: int = SEQUENCES) -> int:
    """A context in which so many texts of at most `longest` tokens are side by side."""
    return sequences * (longest + 1) + 8


@dataclass
class _Writing:
    """A text that is being written in a sequence of the context."""

    number: int
    chain: Any
    written: list[int]
    position: int  # of the token that comes next


def generate_together(
    runtime: "Runtime",
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    sampling: Sampling | None = None,
    on_progress: Progress = unwatched,
) -> list[list[int]]:
    """What follows each prompt as the runtime is steered now, with the token that ends the turn if it came in time.

    Text n is drawn with the seed of `sampling` (default: greedy) plus n, so that no text depends on those beside it. Raises
    InputError where a prompt leaves no room in the context.
    """
    sampling = sampling or Sampling()
    longest = max(map(len, prompts), default=0) + max_new_tokens
    side_by_side = min(runtime.n_sequences, runtime.n_ctx // longest) if longest else 1
    if side_by_side < 1:
        raise InputError(f"{longest} tokens do not fit into the context of {runtime.n_ctx}", "ask for fewer tokens")
    done: list[list[int]] = [[] for _ in prompts]
    waiting = list(enumerate(prompts))[::-1]
    writing: dict[int, _Writing] = {}
    runtime.begin()
    with ExitStack() as chains:
        while waiting or writing:
            for sequence in range(side_by_side):
                if waiting and sequence not in writing:
                    number, prompt = waiting.pop()
                    own = replace(sampling, seed=(sampling.seed + number) % 2**32)
                    chain = chains.enter_context(sampler_chain(own, prompt, runtime.model.n_vocabulary, runtime.n_ctx))
                    row = _read(runtime, prompt, sequence)
                    writing[sequence] = _Writing(number, chain, [runtime.sample(chain, row)], len(prompt))
            for sequence, text in list(writing.items()):
                if len(text.written) == max_new_tokens or runtime.model.ends_turn(text.written[-1]):
                    done[text.number] = text.written
                    del writing[sequence]
                    runtime.drop(sequence)
                    on_progress(len(prompts) - len(waiting) - len(writing), len(prompts), "generating")
            _step(runtime, writing)
    return done


def _read(runtime: "Runtime", prompt: Sequence[int], sequence: int) -> int:
    """Take in a prompt; gives the row of its last token in the batch."""
    row = 0
    for at in range(0, len(prompt), runtime.n_batch):
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
    placed = [(text.written[-1], text.position, sequence) for sequence, text in writing.items()]
    runtime.decode(placed, np.ones(len(placed), dtype=np.bool_), keep=False)
    for row, text in enumerate(writing.values()):
        text.written.append(runtime.sample(text.chain, row))
        text.position += 1


def nll_together(runtime: "Runtime", samples: Sequence[Sample], on_progress: Progress = unwatched) -> DoubleArray:
    """(N, 2): each answer's tokens and the sum of their NLL in nats, as the runtime is steered at the moment.

    What neighbours have in common, as the answers to one question have, goes through the model once. Raises InputError where a
    sample exceeds the context.
    """
    found: list[tuple[int, float]] = []
    for group in _groups(samples, runtime):
        common = _common(group)
        runtime.begin()
        prefix, first = group[0].ids[:common], group[0].answer_start - 1
        shared = [_read_wanted(runtime, prefix, first)]
        runtime.share(range(1, len(group)))
        rests: list[Placed] = []
        for sequence, sample in enumerate(group):
            rests += [(token, common + at, sequence) for at, token in enumerate(sample.ids[common:-1])]
        logits = _decode_all(runtime, rests)
        at = 0
        for sample in group:
            n_own = len(sample.ids) - 1 - common
            rows = np.concatenate([*shared, logits[at : at + n_own]])
            at += n_own
            found.append(answer_nll(log_softmax(torch.from_numpy(rows)), sample))
        on_progress(len(found), len(samples), "measuring")
    return np.array(found, dtype=np.float64).reshape(-1, 2)


def _groups(samples: Sequence[Sample], runtime: "Runtime") -> Iterator[list[Sample]]:
    """Neighbours of one prompt, as many as fit side by side."""
    for prompt, each in groupby(samples, lambda sample: sample.ids[: sample.answer_start]):
        group: list[Sample] = []
        for sample in each:
            if len(sample.ids) > runtime.n_ctx:
                raise InputError(f"{len(sample.ids)} tokens do not fit into the context of {runtime.n_ctx}", "use shorter samples")
            full = len(prompt) + sum(next_one.n_answer for next_one in (*group, sample)) > runtime.n_ctx
            if group and (full or len(group) == runtime.n_sequences):
                yield group
                group = []
            group.append(sample)
        yield group


def _common(group: list[Sample]) -> int:
    """How many tokens all of them begin with; the last token of none is among them, since nothing follows it."""
    shortest = min(len(sample.ids) for sample in group) - 1
    first = group[0].ids
    return next((at for at in range(shortest) if any(sample.ids[at] != first[at] for sample in group)), shortest)


def _read_wanted(runtime: "Runtime", ids: Sequence[int], first: int) -> FloatArray:
    """Tokens into sequence 0; the logits from position `first` on."""
    return _decode_all(runtime, [(token, at, 0) for at, token in enumerate(ids)], first)


def _decode_all(runtime: "Runtime", placed: "Sequence[Placed]", first: int = 0) -> FloatArray:
    """In micro-batches, the logits from row `first` on."""
    found = [np.empty((0, runtime.model.n_vocabulary), dtype=np.float32)]
    for at in range(0, len(placed), runtime.n_batch):
        part = placed[at : at + runtime.n_batch]
        found.append(runtime.decode(part, np.arange(at, at + len(part)) >= first))
    return np.concatenate(found)
