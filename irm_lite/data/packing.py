"""Several samples in one row, without padding and without attention across samples; what they share stands there once.

transformers builds a block-diagonal causal mask where position_ids restart, if there is no attention_mask and no
cache (masking_utils.find_packed_sequence_indices). Logits are asked for only where a label stands.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from irm_lite.data.encoding import Sample

Row = dict[str, Tensor]


def pack(samples: Sequence[Sample], shared: int = 0) -> Row:
    """One row of all samples, one after another; what they have in common at their start, `shared` tokens, stands once before them.

    input_ids, position_ids (1, T); positions (A,): where an answer token is predicted, that is one before it stands;
    labels (A,): those tokens; weights (A,): how much each counts where it is learned; sample (A,): which sample each belongs to;
    lengths (samples,): tokens of each, with the shared ones; shared (): their number; counts (T,): for how many samples a token
    stands.
    """
    ids = list(samples[0].ids[:shared])
    positions: list[int] = []
    position_ids = list(range(shared))
    labels: list[int] = []
    owner: list[int] = []
    weights: list[float] = []
    for number, sample in enumerate(samples):
        offset = len(ids) - shared
        ids += sample.ids[shared:]
        position_ids += range(shared, len(sample.ids))
        positions += range(offset + sample.answer_start - 1, offset + len(sample.ids) - 1)
        labels += sample.ids[sample.answer_start :]
        owner += [number] * sample.n_answer
        weights += sample.weights or (1.0,) * sample.n_answer
    return {
        "input_ids": torch.tensor([ids]),
        "position_ids": torch.tensor([position_ids]),
        "positions": torch.tensor(positions),
        "labels": torch.tensor(labels),
        "weights": torch.tensor(weights),
        "sample": torch.tensor(owner),
        "lengths": torch.tensor([len(sample.ids) for sample in samples]),
        "shared": torch.tensor(shared),
        "counts": torch.tensor([float(len(samples))] * shared + [1.0] * (len(ids) - shared)),
    }


def shared_prefix(samples: Sequence[Sample]) -> int:
    """How many tokens all samples have in common before the first one that predicts an answer; 0 for a sample alone."""
    if len(samples) < 2:
        return 0
    return in_common([sample.ids for sample in samples], min(sample.answer_start for sample in samples) - 1)


def in_common(texts: Sequence[Sequence[int]], most: int) -> int:
    """How many tokens all texts begin with, at most `most`, which none is shorter than."""
    first = texts[0]
    return next((at for at in range(most) if any(text[at] != first[at] for text in texts)), max(0, most))


def rows(samples: Sequence[Sample], max_tokens: int = 1024) -> Iterator[list[Sample]]:
    """Consecutive samples in groups of at most `max_tokens` tokens (a longer sample stands alone)."""
    group: list[Sample] = []
    size = 0
    for sample in samples:
        if group and size + len(sample.ids) > max_tokens:
            yield group
            group, size = [], 0
        group.append(sample)
        size += len(sample.ids)
    if group:
        yield group
