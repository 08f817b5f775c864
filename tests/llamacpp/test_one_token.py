"""What is laid out for one token gives what the network gives."""

import pytest
import torch

from irm_lite.llamacpp.one_token import one_token
from irm_lite.steering.irm import build_irm


@pytest.mark.parametrize("mask", [[], [3, 17]])
def test_lites_outputs_are_the_networks(mask: list[int]) -> None:
    torch.manual_seed(0)
    irm = build_irm("lite", 64, (1, 2, 5), "block", width=32, rank=4, scale=[0.5, 2.0, 30.0], mask=mask).requires_grad_(False)
    for each in (irm.up, irm.bias):
        torch.nn.init.normal_(each)  # type: ignore[arg-type]
    h0 = torch.randn(1, 64)
    quick = one_token(irm, eight_bits=True)
    assert quick is not None
    expected = irm(h0[None])[0, 0]
    torch.testing.assert_close(quick(h0), expected, rtol=1e-5, atol=1e-5)
    assert (quick(h0)[:, mask] == 0).all()


@pytest.mark.parametrize("mask", [[], [3, 17]])
def test_papers_outputs_are_the_networks_to_a_few_per_cent(mask: list[int]) -> None:
    torch.manual_seed(0)
    irm = build_irm("paper", 64, (0, 2, 3), "attn", mask=mask).requires_grad_(False)
    h0 = torch.randn(1, 64)
    quick = one_token(irm, eight_bits=True)
    assert quick is not None
    expected, found = irm(h0[None])[0, 0], quick(h0)
    assert found.shape == expected.shape == (3, 64)
    assert found.dtype == torch.float32
    assert float((found - expected).norm() / expected.norm()) < 0.03
    assert float((found - expected.roll(1, 0)).norm() / expected.norm()) > 0.5  # the layers stand where they belong


def test_paper_is_not_rounded_unless_it_may_be_and_static_has_nothing_to_gain() -> None:
    assert one_token(build_irm("paper", 64, (0,), "attn"), eight_bits=False) is None
    assert one_token(build_irm("static", 64, (0,), "block"), eight_bits=True) is None
    assert one_token(build_irm("lite", 64, (0,), "block").to(torch.bfloat16), eight_bits=True) is None
