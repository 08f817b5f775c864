"""A few positions at a time: the same as all at once, by torch's own functions."""

import pytest
import torch
from torch.nn import functional as F

from irm_lite.core import log_probabilities
from irm_lite.core.log_probabilities import kl, log_softmax


@pytest.mark.parametrize("shape", [(7, 50), (3, 4, 50), (1, 50), (50,), (0, 50)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("at_a_time", [1, 120, 2**20])  # a row, two and a rest, all
def test_pieces_have_the_bits_of_the_whole(
    shape: tuple[int, ...], dtype: torch.dtype, at_a_time: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_probabilities, "_AT_A_TIME", at_a_time)
    drawn = torch.Generator().manual_seed(0)
    p, q = (torch.randn(shape, generator=drawn).mul(4).to(dtype) for _ in range(2))
    torch.testing.assert_close(log_softmax(p), F.log_softmax(p.float(), -1), rtol=0, atol=0)
    p, q = log_softmax(p), log_softmax(q)
    known = F.kl_div(q, p, reduction="none", log_target=True).sum(-1)
    torch.testing.assert_close(kl(p, q), known, rtol=1e-5, atol=1e-6)


def test_a_gradient_goes_through_both() -> None:
    logits = torch.randn(3, 50, generator=torch.Generator().manual_seed(0), requires_grad=True)
    target = log_softmax(torch.zeros(3, 50))
    (found,) = torch.autograd.grad(kl(target, log_softmax(logits)).sum(), logits)
    expected = logits.detach().softmax(-1) - 1 / 50  # of KL(p || softmax(x)) by x
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
