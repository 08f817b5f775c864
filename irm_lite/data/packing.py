"""Several samples in one row, without padding and without attention across samples.

transformers builds a block-diagonal causal mask where position_ids restart, if there is no attention_mask and no
cache (masking_utils.find_packed_sequence_indices). Logits are asked for only where a label stands.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from irm_lite.data.encoding import Sample

Row = dict[str, Tensor]


def pack(samples: Sequence[Sample]) -> Row:
    """One row of all samples, one after another.

    input_ids, position_ids (1, T); positions (A,): where an answer token is predicted, that is one before it stands;
    labels (A,): those tokens; weights (A,): how much each counts where it is learned; sample (A,): which sample each belongs to;
    lengths (samples,): tokens of each.
    """
    ids: list[int] = []
    positions: list[int] = []
    position_ids: list[int] = []
    labels: list[int] = []
    owner: list[int] = []
    weights: list[float] = []
    for number, sample in enumerate(samples):
        offset = len(ids)
        ids += sample.ids
        position_ids += range(len(sample.ids))
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
    }


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
