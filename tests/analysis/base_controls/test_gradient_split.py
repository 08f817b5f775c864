"""The split of the gradient field against finite differences of a model whose denominators are fixed by other means."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from irm_lite.analysis.base_controls.denominators import held, recorded, stream_norms
from irm_lite.analysis.base_controls.gradient_field import gradient_field
from irm_lite.analysis.base_controls.gradient_split import gradient_split
from irm_lite.analysis.statistics.channels import BLOCKS, DIRECT, FINAL, index_shares
from irm_lite.base.forward import answer_logits
from irm_lite.base.load import Base
from irm_lite.core.errors import BaseModelError
from irm_lite.data.encoding import Sample
from irm_lite.data.example import Example
from irm_lite.data.packing import pack
from support.tiny_models import VOCABULARY, tiny_model

LOUD, DIRECTLY = 5, 9
_SEEDS = 100


class WideRMSNorm(nn.Module):
    """transformers' norms compute in float32, which finite differences do not see through. `fixed`: denominators to use."""

    def __init__(self, norm: Any) -> None:
        super().__init__()
        self.weight, self.variance_epsilon = norm.weight, norm.variance_epsilon
        self.fixed: Tensor | None = None
        self.seen: Tensor | None = None

    def forward(self, stream: Tensor) -> Tensor:
        own = torch.rsqrt(stream.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)
        self.seen = own.detach()
        found: Tensor = self.weight * stream * (own if self.fixed is None else self.fixed)
        return found


def widened(model: Any) -> list[WideRMSNorm]:
    """Every norm of the stream as float64, in the order of the forward pass."""
    model.double()
    for block in model.model.layers:
        block.input_layernorm = WideRMSNorm(block.input_layernorm)
        block.post_attention_layernorm = WideRMSNorm(block.post_attention_layernorm)
    model.model.norm = WideRMSNorm(model.model.norm)
    inside = [(block.input_layernorm, block.post_attention_layernorm) for block in model.model.layers]
    return [norm for pair in inside for norm in pair] + [model.model.norm]


def samples(count: int = 3, seed: int = 0) -> list[Sample]:
    generator = np.random.default_rng(seed)
    return [Sample(generator.integers(3, VOCABULARY, 12).tolist(), 6, Example((), None, "")) for _ in range(count)]


@pytest.fixture
def base(llama_base: Base) -> Base:
    """The tiny Llama with a model of its own in float64."""
    mine = copy.copy(llama_base)
    mine.model = copy.deepcopy(llama_base.model)
    widened(mine.model)
    return mine


@contextmanager
def added(block: nn.Module, vector: Tensor) -> Iterator[None]:
    def add(_module: nn.Module, _args: object, output: Any) -> Any:
        return (output[0] + vector, *output[1:]) if isinstance(output, tuple) else output + vector

    handle = block.register_forward_hook(add)
    try:
        yield
    finally:
        handle.remove()


def loss_of(model: Any, given: list[Sample]) -> float:
    with torch.no_grad():
        row = pack(given)
        return float(F.cross_entropy(answer_logits(model, row), row["labels"]))


@pytest.mark.parametrize("layer", [0, 2])
def test_each_part_is_a_finite_difference(base: Base, layer: int) -> None:
    given = samples()
    parts = gradient_split(base, given, (0, 1, 2), "block")
    norms = widened_norms(base)
    loss_of(base.model, given)
    own = [norm.seen for norm in norms]
    direction = torch.from_numpy(np.random.default_rng(1).normal(size=base.hidden_size))
    step = 1e-3  # the rotary angles are in float32 all the same

    def slope(fixed: list[bool]) -> float:
        for norm, which, seen in zip(norms, fixed, own, strict=True):
            norm.fixed = seen if which else None
        ends = []
        for sign in (1, -1):
            with added(base.model.model.layers[layer], sign * step * direction):
                ends.append(loss_of(base.model, given))
        for norm in norms:
            norm.fixed = None
        return (ends[0] - ends[1]) / (2 * step)

    count = len(norms)
    direct, with_final, whole = slope([True] * count), slope([True] * (count - 1) + [False]), slope([False] * count)
    along = {name: float(part[layer] @ direction.numpy()) for name, part in parts.items()}
    assert along[DIRECT] == pytest.approx(direct, rel=1e-3)
    assert along[FINAL] == pytest.approx(with_final - direct, rel=1e-3, abs=1e-6)
    assert along[BLOCKS] == pytest.approx(whole - with_final, rel=1e-3, abs=1e-6)


def widened_norms(base: Base) -> list[WideRMSNorm]:
    return [norm for norm in stream_norms(base.model).values() if isinstance(norm, WideRMSNorm)]


@pytest.mark.parametrize("each_norm", [False, True])
def test_the_parts_sum_to_the_field(base: Base, each_norm: bool) -> None:
    given = samples()
    parts = gradient_split(base, given, (0, 1, 2), "attn", each_norm=each_norm)
    whole = gradient_field(base, given, (0, 1, 2), "attn")
    assert len(parts) == (2 + 2 * base.n_layers if each_norm else 3)
    np.testing.assert_allclose(sum(parts.values()), whole, rtol=1e-6, atol=1e-6 * np.abs(whole).max())
    np.testing.assert_allclose(sum(index_shares(parts).values()), 1, rtol=1e-6)


def test_what_is_behind_the_last_block_goes_through_the_final_norm_alone(base: Base) -> None:
    parts = gradient_split(base, samples(), (0, 1, 2), "block", each_norm=True)
    for name, part in parts.items():
        assert np.abs(part[2]).max() > 0 or name not in (DIRECT, FINAL)
        assert name in (DIRECT, FINAL) or not part[2].any()


def test_denominators_of_another_text_are_put_in_their_place(llama_base: Base) -> None:
    """Twice the stream behind the last block: the same logits where the final norm is free, twice as large where it is held."""
    given, norms = samples(), stream_norms(llama_base.model)
    row = pack(given)
    with torch.no_grad(), recorded(norms) as seen:
        plain = answer_logits(llama_base.model, row)

    def double(_module: nn.Module, _args: object, output: Any) -> Any:
        return (2 * output[0], *output[1:]) if isinstance(output, tuple) else 2 * output

    handle = llama_base.model.model.layers[-1].register_forward_hook(double)
    try:
        with torch.no_grad():
            free = answer_logits(llama_base.model, row)
            with held(norms, [FINAL], dict(seen)):
                fixed = answer_logits(llama_base.model, row)
    finally:
        handle.remove()
    torch.testing.assert_close(free, plain, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(fixed, 2 * plain, rtol=1e-4, atol=1e-4)


def planted(base: Base, seed: int) -> Base:
    """LOUD: 30 times as large as the others at every token, read by nothing. DIRECTLY: as large as the others, read by all."""
    mine = copy.copy(base)
    mine.model = model = tiny_model(layers=2, seed=seed)
    with torch.no_grad():
        embedding = model.get_input_embeddings().weight
        embedding[:, LOUD] = 30 * embedding.std()
        for block in model.model.layers:
            for norm in (block.input_layernorm, block.post_attention_layernorm):
                norm.weight[LOUD], norm.weight[DIRECTLY] = 1e-5, 3.0
            for matrix in (block.self_attn.o_proj.weight, block.mlp.down_proj.weight):
                matrix[LOUD] = 0
        model.model.norm.weight[LOUD], model.model.norm.weight[DIRECTLY] = 1e-5, 3.0
    mine.__dict__.pop("n_layers", None)
    return mine


@pytest.mark.slow
def test_planted_channels_are_told_apart(llama_base: Base) -> None:
    loud, directly, others = 0, 0, []
    for seed in range(_SEEDS):
        parts = gradient_split(planted(llama_base, seed), samples(4, seed), (0, 1), "block")
        direct = index_shares(parts)[DIRECT]
        loud += direct[LOUD] < 0.5
        directly += direct[DIRECTLY] > 0.5
        others.append(np.delete(direct, [LOUD, DIRECTLY]) < 0.5)
    assert loud >= 0.95 * _SEEDS
    assert directly >= 0.95 * _SEEDS
    assert np.mean(others) <= 0.05  # channels in which nothing was planted


def test_other_norms_are_refused(llama_base: Base) -> None:
    model = copy.deepcopy(llama_base.model)
    model.model.norm = nn.LayerNorm(llama_base.hidden_size)
    with pytest.raises(BaseModelError, match="through RMSNorms"):
        stream_norms(model)
