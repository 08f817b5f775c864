"""A packed row gives the loss of its samples one by one."""

from typing import Any

import pytest
import torch
from torch.nn import functional as F
from transformers import PreTrainedModel

from irm_lite.base import packed_attention
from irm_lite.base.forward import answer_hidden, answer_logits, run_base
from irm_lite.base.packed_attention import attend_by_sample
from irm_lite.data.dataset import Example
from irm_lite.data.encoding import Sample
from irm_lite.data.packing import pack, rows
from irm_lite.training.step.answer_loss import answer_nll
from support.tiny_models import VOCABULARY, tiny_model

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


@pytest.mark.parametrize("attend", [packed_attention._one_by_one, packed_attention._padded])
@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_attention_by_sample_is_sdpa_under_a_block_diagonal_mask(
    attend: Any, kind: str, samples: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, row = tiny_model(kind), pack(samples)
    embedded = model.get_input_embeddings()(row["input_ids"])
    found = []
    for by_sample in (False, True):  # at first as transformers does it: sdpa, a mask made of the position ids
        if by_sample:
            attend_by_sample(model)
            monkeypatch.setattr(packed_attention, "_one_by_one", attend)
        stream = embedded.detach().requires_grad_()
        hidden = run_base(model, row, stream)
        (gradient,) = torch.autograd.grad(hidden.square().sum(), stream)
        found.append((hidden, gradient))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-3, atol=1e-3)
    assert model.config._attn_implementation == packed_attention.NAME


def test_without_lengths_attention_is_as_it_was() -> None:
    model = tiny_model()
    ids = torch.tensor([[5, 6, 7, 8]])
    before = model.generate(ids, max_new_tokens=6, do_sample=False)
    attend_by_sample(model)
    assert torch.equal(model.generate(ids, max_new_tokens=6, do_sample=False), before)


@pytest.mark.parametrize("answers", [1, 96, 97, 250])
def test_nll_through_the_frozen_head_is_cross_entropy(answers: int) -> None:
    head = torch.nn.Linear(16, VOCABULARY, bias=False).requires_grad_(False)
    hidden = (40 * torch.randn(answers, 16)).requires_grad_()  # far apart logits: some chances are zero in float32
    labels = torch.randint(0, VOCABULARY, (answers,))
    weights = torch.rand(answers)
    expected = (weights * F.cross_entropy(head(hidden), labels, reduction="none")).sum()
    found = answer_nll(head, hidden, labels, weights)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-4)
    gradients = [torch.autograd.grad(3 * each, hidden)[0] for each in (found, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(answer_nll(head, hidden, labels, weights), expected, rtol=1e-5, atol=1e-4)


def test_a_head_that_is_not_frozen_gets_its_gradient(samples: list[Sample]) -> None:
    head = torch.nn.Linear(8, 20)
    torch.autograd.backward(answer_nll(head, torch.randn(5, 8), torch.arange(5), torch.ones(5)))
    assert head.weight.grad is not None
    assert bool(head.weight.grad.any())


def test_rows_keep_order_lose_nothing_and_hold_to_their_size(samples: list[Sample]) -> None:
    grouped = list(rows(samples, 12))
    assert [sample for group in grouped for sample in group] == samples
    assert all(len(group) == 1 or sum(len(sample.ids) for sample in group) <= 12 for group in grouped)
    assert [len(group) for group in grouped] == [2, 1, 2]
