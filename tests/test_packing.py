"""A packed row gives the loss of its samples one by one."""

import pytest
import torch
from torch.nn import functional as F
from transformers import PreTrainedModel

from irm_lite.chat_format import Sample
from irm_lite.dataset import Example
from irm_lite.packing import answer_hidden, answer_logits, pack, rows
from tiny_models import VOCABULARY, tiny_model

LENGTHS = [(9, 4), (3, 1), (14, 6), (5, 4), (2, 1)]  # (tokens, where the answer starts)


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    return tiny_model()


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    generator = torch.Generator().manual_seed(0)
    ids = [torch.randint(3, VOCABULARY, (length,), generator=generator).tolist() for length, _ in LENGTHS]
    return [Sample(each, start, Example((), "", "")) for each, (_, start) in zip(ids, LENGTHS, strict=True)]


def test_packed_loss_equals_unpacked_loss(model: PreTrainedModel, samples: list[Sample]) -> None:
    row = pack(samples)
    with torch.no_grad():
        packed = F.cross_entropy(answer_logits(model, row), row["labels"], reduction="none")
        apart = []
        for sample in samples:  # one at a time, with transformers' own shifted loss over the labelled tokens
            ids = torch.tensor([sample.ids])
            labels = ids.clone()
            labels[:, : sample.answer_start] = -100
            apart.append(model(input_ids=ids, labels=labels).loss * sample.n_answer)
    assert abs(float(packed.sum() - sum(apart))) / len(packed) < 1e-5
    assert row["labels"].tolist() == [token for sample in samples for token in sample.ids[sample.answer_start :]]


def test_hidden_states_at_the_answers_give_the_same_logits(model: PreTrainedModel, samples: list[Sample]) -> None:
    row = pack(samples)
    with torch.no_grad():
        assert torch.equal(model.lm_head(answer_hidden(model, row)), answer_logits(model, row))


def test_rows_keep_order_lose_nothing_and_hold_to_their_size(samples: list[Sample]) -> None:
    grouped = list(rows(samples, 12))
    assert [sample for group in grouped for sample in group] == samples
    assert all(len(group) == 1 or sum(len(sample.ids) for sample in group) <= 12 for group in grouped)
    assert [len(group) for group in grouped] == [2, 1, 2]
