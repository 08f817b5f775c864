"""Weights in bfloat16 learn what float32 ones learn: against bitsandbytes' own steps and against what chance says."""

import pytest
import torch
from bitsandbytes.optim import AdamW
from torch import nn

from irm_lite.training.step import rounding_adamw as stochastic_rounding
from irm_lite.training.step.rounding_adamw import RoundingAdamW, rounded


def test_rounds_to_a_neighbour_and_to_the_weight_on_average() -> None:
    """The mean of n draws between neighbours a step apart is within 6 step / (2 sqrt n) of the weight."""
    generator = torch.Generator().manual_seed(0)
    for weight in (1.001, -0.3337, 3e-39, -70000.5, 1.0):
        draws = rounded(torch.full((40000,), weight), generator).double()
        below, above = draws.min().item(), draws.max().item()
        neighbours = {torch.tensor(below).bfloat16().item(), torch.tensor(above).bfloat16().item()}
        assert neighbours == set(draws.tolist())
        assert below <= torch.tensor(weight).item() <= above
        assert abs(draws.mean().item() - torch.tensor(weight).double().item()) <= 6 * (above - below) / 2 / 200
        nearest = torch.tensor(weight).bfloat16().item()
        assert nearest in neighbours


def test_what_is_not_finite_stays_so() -> None:
    """CUDA's NaN has all bits set but the sign."""
    generator = torch.Generator().manual_seed(0)
    bad = torch.tensor([float("inf"), float("-inf")]).repeat(1000)
    assert torch.equal(rounded(bad, generator), bad.bfloat16())
    nans = torch.tensor([0x7FFFFFFF, -1, 0x7FC00000, -0x400000], dtype=torch.int32).repeat(1000).view(torch.float32)
    assert rounded(nans, generator).isnan().all()


@pytest.mark.parametrize("bits", [8, 32])
@pytest.mark.parametrize("shape", [(300, 70), (10,), (256, 8)])
def test_a_step_is_that_of_bitsandbytes_in_float32(bits: int, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """In pieces, whatever their number: with nothing rounded, weights and states are equal to the bit."""
    monkeypatch.setattr(stochastic_rounding, "_PIECE", 1024)
    monkeypatch.setattr(stochastic_rounding, "rounded", lambda weights, generator: weights)
    torch.manual_seed(0)
    start, gradients = torch.randn(shape).bfloat16(), [torch.randn(shape).bfloat16() for _ in range(3)]
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.float())
    optimisers = [
        kind([each], lr=1e-3, weight_decay=0.1, optim_bits=bits) for kind, each in ((RoundingAdamW, ours), (AdamW, theirs))
    ]
    for gradient in gradients:
        ours.grad, theirs.grad = gradient.clone(), gradient.float()
        theirs.data.copy_(ours.data)  # ours are kept in bfloat16 between the steps
        for optimiser in optimisers:
            optimiser.step()
        assert torch.equal(ours.data, theirs.data.bfloat16())
    for mine, its in zip(*(optimiser.state_dict()["state"][0].items() for optimiser in optimisers), strict=True):
        assert mine[0] == its[0]
        torch.testing.assert_close(mine[1], its[1], rtol=0, atol=0)


@pytest.mark.slow
def test_small_steps_add_up() -> None:
    """A thousand steps of 1e-4 from 1.0, where neighbours are 0.0078 and 0.0039 away: to nearest, not one is made."""
    ends = []
    for kind in (AdamW, RoundingAdamW):
        weight = nn.Parameter(torch.ones(5000, dtype=torch.bfloat16))
        optimiser = kind([weight], lr=1e-4, optim_bits=8)
        for _ in range(1000):
            weight.grad = torch.ones_like(weight)
            optimiser.step()
        ends.append(weight.data.float().mean().item())
    assert ends[0] == 1.0
    assert abs(ends[1] - 0.9) < 1e-3


def test_drawn_alike_in_every_process_and_after_a_resume() -> None:
    def steps(optimiser: RoundingAdamW, weights: list[nn.Parameter], gradients: list[torch.Tensor]) -> None:
        for gradient in gradients:
            for weight in weights:
                weight.grad = gradient.clone()
            optimiser.step()

    torch.manual_seed(0)
    gradients = [torch.randn(40, 40).bfloat16() for _ in range(4)]
    first = [nn.Parameter(torch.ones(40, 40, dtype=torch.bfloat16)) for _ in range(2)]
    whole = RoundingAdamW(first, lr=1e-3, optim_bits=8)
    steps(whole, first, gradients[:2])
    torch.randn(3)  # what else draws does not matter
    second = [nn.Parameter(each.data.clone()) for each in first]
    resumed = RoundingAdamW(second, lr=1e-3, optim_bits=8)
    resumed.load_state_dict(whole.state_dict())
    steps(whole, first, gradients[2:])
    steps(resumed, second, gradients[2:])
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not torch.equal(first[0], first[1])  # equal weights are not rounded alike
