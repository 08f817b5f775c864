"""What the samples of a row share at their start is computed once: the same numbers, and gradients that add up."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from irm_lite.base import packed_attention
from irm_lite.base.forward import answer_logits, can_share, row_of
from irm_lite.base.load import Base
from irm_lite.data.encoding import Sample
from irm_lite.data.example import Example
from irm_lite.data.packing import pack, shared_prefix
from irm_lite.steering.injection import inject
from irm_lite.steering.irm import IRM, build_irm
from irm_lite.training.step.frozen_prefix import FrozenPrefix
from irm_lite.training.step.injected_model import InjectedModel


def sample(ids: list[int], answer_start: int) -> Sample:
    return Sample(ids, answer_start, Example(({"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}), None, ""))


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    """Eleven tokens in common, then of several lengths; one answer begins right behind them."""
    draw = torch.Generator().manual_seed(3)

    def some(count: int) -> list[int]:
        return torch.randint(5, 200, (count,), generator=draw).tolist()

    start = some(11)
    return [sample([*start, 3, *some(9)], 15), sample([*start, 4, *some(3)], 12), sample([*start, 2, *some(14)], 20)]


def network(kind: str, base: Base, site: str) -> IRM:
    torch.manual_seed(5)
    irm = build_irm(kind, base.model.config.hidden_size, (0, 1) if site == "attn" else (1,), site)  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in irm.parameters():
            parameter.normal_(0, 0.05)
    return irm


def test_how_much_is_common(samples: list[Sample]) -> None:
    assert shared_prefix(samples) == 11
    assert shared_prefix(samples[:1]) == 0
    assert shared_prefix([samples[0], replace(samples[0])]) == samples[0].answer_start - 1  # what predicts the answer is not shared
    assert shared_prefix([samples[0], sample([1, 2, 3, 4], 2)]) == 0


def test_each_answer_is_as_alone(llama_base: Base, samples: list[Sample]) -> None:
    """Against transformers, one sample at a time."""
    row = row_of(llama_base.model, samples)
    assert row["input_ids"].shape[1] == sum(len(each.ids) for each in samples) - 2 * 11
    assert row["counts"].sum() == sum(len(each.ids) for each in samples)
    with torch.no_grad():
        found = answer_logits(llama_base.model, row)
        alone = [llama_base.model(torch.tensor([each.ids])).logits[0, each.answer_start - 1 : -1] for each in samples]
    torch.testing.assert_close(found, torch.cat(alone), atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["static", "lite", "paper"])
@pytest.mark.parametrize("site", ["attn", "block"])
def test_a_step_is_the_same(llama_base: Base, samples: list[Sample], kind: str, site: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loss with both penalties, and its gradient, against rows that share nothing."""

    def step() -> tuple[Tensor, list[Tensor]]:
        irm = network(kind, llama_base, site)
        with inject(llama_base.model, irm) as injection:
            model = InjectedModel(llama_base, injection, l1=0.1, dependence=0.5)
            with model.stepping():
                loss = model(samples)
                loss.backward()
        return loss.detach(), [torch.zeros(()) if each.grad is None else each.grad for each in irm.parameters()]

    loss, gradients = step()
    monkeypatch.setattr("irm_lite.training.step.injected_model.row_of", lambda _, samples: pack(samples))
    plain, wanted = step()
    torch.testing.assert_close(loss, plain, atol=1e-6, rtol=0)
    whole = torch.cat([each.flatten() for each in wanted])
    difference = torch.cat([each.flatten() for each in gradients]) - whole
    assert difference.norm() <= 1e-5 * whole.norm()
    assert whole.norm() > 0


@pytest.mark.parametrize("shared", [0, 1, 7])
def test_attention_of_a_gpu_is_that_of_a_cpu(shared: int) -> None:
    """And both are transformers' own of each sample alone; gradients too."""
    lengths, heads, kv_heads, size = (9, 12, 8), 4, 2, 8
    total = sum(lengths) - 2 * shared
    draw = torch.Generator().manual_seed(1)
    made = [torch.randn(1, count, total, size, generator=draw) for count in (heads, kv_heads, kv_heads)]
    weight = torch.randn(1, total, heads, size, generator=draw)

    def run(attend: Callable[..., Tensor]) -> list[Tensor]:
        given = [each.clone().requires_grad_() for each in made]
        found = attend(*given, lengths, shared, None)
        (found * weight).sum().backward()  # type: ignore[no-untyped-call]
        return [found.detach(), *(each.grad for each in given if each.grad is not None)]

    def one_mask(query: Tensor, key: Tensor, value: Tensor, *_: object) -> Tensor:
        """All at once, by a mask over the row that is written out."""
        rests = [length - shared for length in lengths]
        owner = torch.tensor([-1] * shared + [number for number, rest in enumerate(rests) for _ in range(rest)])
        at = torch.arange(total)
        allowed = (at[None] <= at[:, None]) & ((owner[None] == owner[:, None]) | (owner[None] == -1))
        return F.scaled_dot_product_attention(query, key, value, allowed, enable_gqa=True).transpose(1, 2)

    expected = run(one_mask)
    for attend in (packed_attention._one_by_one, packed_attention._padded):
        for found, wanted in zip(run(attend), expected, strict=True):
            torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


def test_models_whose_attention_looks_back_less_far_share_nothing(llama_base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    assert can_share(llama_base.model, 10)
    monkeypatch.setattr(llama_base.model.config, "sliding_window", 8, raising=False)
    assert not can_share(llama_base.model, 10)
    assert can_share(llama_base.model, 8)
    monkeypatch.setattr(llama_base.model.config, "attn_logit_softcapping", 50.0, raising=False)
    assert not can_share(llama_base.model, 8)


def test_a_kept_prefix_is_put_together_as_the_row_is(llama_base: Base, samples: list[Sample], tmp_path: Path) -> None:
    """Blocks below the first injected one are run once a sample, without sharing; a row takes their states as it stands."""
    irm = network("lite", llama_base, "block")
    kept, fresh = FrozenPrefix(llama_base.model, irm), FrozenPrefix(llama_base.model, irm)
    assert kept.keep(samples, tmp_path) == "memory"
    row = row_of(llama_base.model, samples)
    found, wanted = kept.states(samples, row), fresh.states(samples, row)
    assert found.keys() == wanted.keys()
    for name, states in found.items():
        assert states.shape[1] == row["input_ids"].shape[1]
        torch.testing.assert_close(states, wanted[name], atol=1e-5, rtol=1e-5)
