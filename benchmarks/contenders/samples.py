"""The same samples in the same order for every contender."""

from collections.abc import Iterator, Sequence
from typing import TypeVar

from accelerate.data_loader import SeedableRandomSampler

from irm_lite.data.encoding import Sample

Batch = list[Sample]
T = TypeVar("T")


def epochs(samples: Sequence[T], batch_size: int, seed: int) -> Iterator[list[list[T]]]:
    """The batches of one epoch after another, as transformers' Trainer takes them with this seed: accelerate shuffles there."""
    sampler = SeedableRandomSampler(samples, data_seed=seed)
    while True:
        order = list(sampler)
        yield [[samples[i] for i in order[at : at + batch_size]] for at in range(0, len(order), batch_size)]


def real_tokens(batch: Batch, limit: int) -> int:
    """Tokens that are no padding, of samples cut at `limit`."""
    return sum(min(len(sample.ids), limit) for sample in batch)


def supervised_tokens(batch: Batch, limit: int) -> int:
    """Answer tokens, of samples cut at `limit`."""
    return sum(max(min(len(sample.ids), limit) - sample.answer_start, 0) for sample in batch)
