"""Injection against a second derivation of Llama and the IRMs, and the promise to leave no trace."""

from typing import Literal

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from irm_lite.base.architecture import decoder_layers
from irm_lite.base.forward import answer_logits
from irm_lite.config import KINDS, Kind
from irm_lite.core.errors import InputError
from irm_lite.steering.control_vector import ControlVector
from irm_lite.steering.injection import inject
from irm_lite.steering.irm import IRM, build_irm
from support import rederived
from support.kinds import read_by, sites_of
from support.tiny_models import VOCABULARY, tiny_model

Site = Literal["attn", "block"]


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    return tiny_model(layers=3)


def random_irm(kind: Kind, site: Site = "attn", layers: tuple[int, ...] = (0, 1, 2), seed: int = 1) -> IRM:
    """An IRM whose every parameter is random, zero-initialised ones too, and whose effect is large."""
    torch.manual_seed(seed)
    options = {"rank": 4} if kind in ("lite", "lora") else {}
    irm = build_irm(kind, 64, layers, site, **options, **read_by(kind, 128))
    with torch.no_grad():
        for parameter in irm.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return irm.requires_grad_(False)


def token_ids(*shape: int, seed: int = 2) -> Tensor:
    return torch.randint(3, VOCABULARY, shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("kind", "site"), [(kind, site) for kind in KINDS for site in sites_of(kind)])
@pytest.mark.parametrize("layers", [(0, 1, 2), (1,), (0, 2)])
def test_logits_equal_the_second_derivation(model: PreTrainedModel, kind: Kind, site: Site, layers: tuple[int, ...]) -> None:
    irm, ids = random_irm(kind, site, layers), token_ids(2, 9)
    with torch.no_grad(), inject(model, irm, strength=0.7):
        injected = model(ids).logits
    expected = rederived.logits(model, ids, irm, strength=0.7)
    plain = rederived.logits(model, ids, None)
    assert (injected - expected).abs().max() < 1e-5
    assert (plain - expected).abs().max() > 1e-2  # the injection is not a nothing


@pytest.mark.parametrize("kind", KINDS)
def test_forward_stacks_what_the_formula_gives(kind: Kind) -> None:
    irm = random_irm(kind, "block")
    h0 = torch.randn(2, 5, irm.options.get("inner", 64))
    output = irm(h0)
    assert output.shape == (2, 5, 3, 64)
    torch.testing.assert_close(output, rederived.irm_outputs(irm, h0), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("kind", "site"), [(kind, site) for kind in ("paper", "lite", "lora") for site in sites_of(kind)])
def test_kv_cache_changes_nothing(model: PreTrainedModel, kind: Kind, site: Site) -> None:
    irm, ids = random_irm(kind, site), token_ids(1, 12)
    with torch.no_grad(), inject(model, irm):
        whole = model(ids, use_cache=False).logits
        prompt = model(ids[:, :5], use_cache=True)
        steps, cache = [prompt.logits], prompt.past_key_values
        for position in range(5, 12):
            step = model(ids[:, position : position + 1], past_key_values=cache, use_cache=True)
            steps.append(step.logits)
            cache = step.past_key_values
    assert (whole - torch.cat(steps, 1)).abs().max() < 1e-5


def test_greedy_generate_follows_the_second_derivation(model: PreTrainedModel) -> None:
    irm, ids = random_irm("lite"), token_ids(1, 6)
    with torch.no_grad(), inject(model, irm):
        generated = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False, eos_token_id=None)
    expected = ids
    for _ in range(8):
        best = rederived.logits(model, expected, irm)[:, -1].argmax(-1, keepdim=True)
        expected = torch.cat([expected, best], 1)
    assert generated.tolist() == expected.tolist()


def test_packed_rows_do_not_see_each_other(model: PreTrainedModel) -> None:
    irm = random_irm("lite")
    first, second = token_ids(1, 7, seed=3), token_ids(1, 5, seed=4)
    row = {
        "input_ids": torch.cat([first, second], 1),
        "position_ids": torch.cat([torch.arange(7), torch.arange(5)])[None],
        "positions": torch.arange(12),
        "lengths": torch.tensor([7, 5]),
        "shared": torch.tensor(0),
    }
    with torch.no_grad(), inject(model, irm):
        packed = answer_logits(model, row)
        apart = torch.cat([model(first).logits[0], model(second).logits[0]])
    assert (packed - apart).abs().max() < 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_equal_those_of_the_second_derivation(model: PreTrainedModel, kind: Kind) -> None:
    irm, ids = random_irm(kind, sites_of(kind)[0]).requires_grad_(True), token_ids(2, 6)
    with inject(model, irm):
        model(ids).logits.square().mean().backward()
    got = {name: parameter.grad for name, parameter in irm.named_parameters()}
    values = {name: parameter.detach().clone().requires_grad_(True) for name, parameter in irm.named_parameters()}

    class Copy:  # a state dict that autograd sees through
        hidden_size, layers, site, kind, options = irm.hidden_size, irm.layers, irm.site, irm.kind, irm.options

        def state_dict(self) -> dict[str, Tensor]:
            return values

    rederived.logits(model, ids, Copy()).square().mean().backward()  # type: ignore[arg-type, no-untyped-call]
    for name, gradient in got.items():
        torch.testing.assert_close(gradient, values[name].grad, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("kind", ["paper", "lite", "lora"])
def test_gradient_checkpointing_gives_the_same_gradients(model: PreTrainedModel, kind: Kind) -> None:
    irm, ids = random_irm(kind, sites_of(kind)[0]).requires_grad_(True), token_ids(2, 6)
    gradients = []
    for checkpointing in (False, True):
        irm.zero_grad(set_to_none=True)
        if checkpointing:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
            for layer in decoder_layers(model):
                layer.training = True
        try:
            with inject(model, irm):
                model(ids, use_cache=False).logits.square().mean().backward()
        finally:
            model.gradient_checkpointing_disable()
            model.eval()
        gradients.append([parameter.grad for parameter in irm.parameters()])
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, recomputed, atol=1e-7, rtol=1e-5)


def test_model_is_bit_for_bit_as_before_after_an_exception(model: PreTrainedModel) -> None:
    ids = token_ids(1, 5)
    hooks = [dict(module._forward_hooks) | dict(module._forward_pre_hooks) for module in model.modules()]
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.no_grad():
        before = model(ids).logits
        with pytest.raises(RuntimeError, match="boom"), inject(model, random_irm("lite")):
            model(ids)
            raise RuntimeError("boom")
        after = model(ids).logits
    assert torch.equal(before, after)
    assert hooks == [dict(module._forward_hooks) | dict(module._forward_pre_hooks) for module in model.modules()]
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())


def test_strength_and_switches_act_between_forwards(model: PreTrainedModel) -> None:
    irm, ids = random_irm("paper"), token_ids(1, 5)
    plain = rederived.logits(model, ids, None)
    with torch.no_grad(), inject(model, irm) as injection:
        for strength in (1.0, -0.5, 0.0):
            injection.strength = strength
            assert (model(ids).logits - rederived.logits(model, ids, irm, strength)).abs().max() < 1e-5
        injection.strength, injection.enabled = 1.0, False
        assert (model(ids).logits - plain).abs().max() < 1e-5
        injection.enabled, injection.layers = True, frozenset({1})
        limited = model(ids).logits
    one = random_irm("paper")
    silent = one.state_dict()  # the same network, silent at layers 0 and 2
    silent["head.weight"].view(64, 3, -1)[:, [0, 2]] = 0
    silent["head.bias"].view(64, 3)[:, [0, 2]] = 0
    assert (limited - rederived.logits(model, ids, one)).abs().max() < 1e-5


def test_nested_vectors_add_up_and_doubling_is_refused(model: PreTrainedModel) -> None:
    generator = torch.Generator().manual_seed(5)
    a, b = (ControlVector({1: torch.randn(64, generator=generator).numpy()}, "llama") for _ in range(2))
    ids = token_ids(1, 4)
    with torch.no_grad():
        with inject(model, a + b):
            together = model(ids).logits
        with inject(model, a), inject(model, b):
            nested = model(ids).logits
    assert (together - nested).abs().max() < 1e-5
    irm = random_irm("lite")
    with inject(model, irm), pytest.raises(InputError, match="already"), inject(model, irm):
        pass
    with inject(model, irm):  # and after the refusal it can be injected again
        pass


def test_an_irm_of_another_shape_is_refused(model: PreTrainedModel) -> None:
    for irm in (build_irm("static", 32, (0,)), build_irm("static", 64, (0, 3))):
        with pytest.raises(InputError, match="trained on"), inject(model, irm):
            pass
