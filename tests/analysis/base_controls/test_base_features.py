"""The base's own features and gradient field, against direct computation."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from irm_lite.analysis.base_controls.features import base_features, stream_power, top_tokens
from irm_lite.analysis.base_controls.gradient_field import gradient_field, shuffled
from irm_lite.base.load import Base, load_base
from irm_lite.data.dataset import load_dataset
from irm_lite.data.encoding import Sample, encode_all
from irm_lite.steering.control_vector import ControlVector
from irm_lite.steering.injection import inject
from irm_lite.steering.irm import Site, StaticIRM


@pytest.fixture(scope="module")
def base(llama_folder: Path) -> Base:
    return load_base(str(llama_folder), quant="none", dtype="float32")


@pytest.fixture(scope="module")
def samples(base: Base) -> list[Sample]:
    return encode_all(base.tokenizer, load_dataset("anger").train[:4], 512)[0]


@torch.no_grad()
def nll(base: Base, samples: list[Sample]) -> float:
    """Mean over answer tokens, one sample at a time, not packed."""
    total, count = 0.0, 0
    for sample in samples:
        logits = base.model(torch.tensor([sample.ids])).logits[0, sample.answer_start - 1 : -1].double()
        total += F.cross_entropy(logits, torch.tensor(sample.ids[sample.answer_start :]), reduction="sum").item()
        count += sample.n_answer
    return total / count


@pytest.mark.parametrize("site", ["attn", "block"])
def test_the_gradient_field_is_the_slope_of_the_nll(base: Base, samples: list[Sample], site: Site) -> None:
    """Along random directions, by central differences."""
    layers = (0, 1, 2)
    field = gradient_field(base, samples, layers, site)
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        direction = torch.randn(len(layers), base.hidden_size, generator=generator)
        step, found = 1e-3, []
        for sign in (1, -1):
            irm = StaticIRM(base.hidden_size, layers, site)
            with torch.no_grad():
                irm.vectors.copy_(sign * step * direction)
            with inject(base.model, irm):
                found.append(nll(base, samples))
        slope = (found[0] - found[1]) / (2 * step)
        assert slope == pytest.approx(float((torch.from_numpy(field) * direction).sum()), rel=1e-2, abs=1e-3)


def test_a_layers_field_does_not_depend_on_the_others(base: Base, samples: list[Sample]) -> None:
    every, one = gradient_field(base, samples, (0, 1, 2), "attn"), gradient_field(base, samples, (1,), "attn")
    np.testing.assert_allclose(every[1], one[0], atol=1e-6 * np.abs(one).max() + 1e-7)


def test_shuffled_answers_keep_question_tokens_and_end(samples: list[Sample]) -> None:
    for before, after in zip(samples, shuffled(samples), strict=True):
        start = before.answer_start
        assert after.ids[:start] == before.ids[:start]
        assert after.ids[-1] == before.ids[-1]
        assert sorted(after.ids) == sorted(before.ids)
        assert after.ids != before.ids


@pytest.mark.parametrize("site", ["attn", "block"])
def test_features_are_what_a_plain_forward_shows(base: Base, samples: list[Sample], site: Site) -> None:
    layers, model = (0, 2), base.model
    mlp: dict[int, Tensor] = {}
    handles = [
        model.model.layers[layer].mlp.register_forward_hook(lambda _m, _a, out, layer=layer: mlp.update({layer: out}))
        for layer in layers
    ]
    squares, count = np.zeros((2, base.hidden_size)), 0
    after: dict[int, Tensor] = {}
    handles += [
        model.model.layers[layer].register_forward_hook(lambda _m, _a, out, layer=layer: after.update({layer: out}))
        for layer in layers
    ]
    for sample in samples:
        with torch.no_grad():
            model(torch.tensor([sample.ids]))
        for row, layer in enumerate(layers):
            stream = after[layer] - mlp[layer] if site == "attn" else after[layer]
            squares[row] += stream[0, sample.answer_start - 1 : -1].double().square().sum(0).numpy()
        count += sample.n_answer
    for handle in handles:
        handle.remove()
    rms = np.sqrt(squares / count)
    found = base_features(base, stream_power(base, samples, site), layers, site)
    np.testing.assert_allclose(found["residual RMS"], (rms / rms.mean(1, keepdims=True)).mean(0), rtol=1e-4)
    state = {name: value.double().numpy() for name, value in model.state_dict().items()}
    norms = {
        "attn": ["layers.0.post_attention_layernorm", "layers.2.post_attention_layernorm"],
        "block": ["layers.1.input_layernorm", "norm"],
    }
    gains = np.abs([state[f"model.{name}.weight"] for name in norms[site]])
    np.testing.assert_allclose(found["norm gain"], (gains / gains.mean(1, keepdims=True)).mean(0), rtol=1e-5)
    head = np.sqrt(np.square(state["lm_head.weight"]).sum(0))
    np.testing.assert_allclose(found["head norm"], head, rtol=1e-5)
    np.testing.assert_allclose(found["head norm x final gain"], head * np.abs(state["model.norm.weight"]), rtol=1e-5)
    np.testing.assert_allclose(found["embedding norm"], np.sqrt(np.square(state["model.embed_tokens.weight"]).sum(0)), rtol=1e-5)
    assert not any(module._forward_hooks for module in model.modules())


def test_the_lens_names_the_tokens_that_a_small_step_pushes(base: Base) -> None:
    """Added to the last block's output the vector raises the logits of `up` and lowers those of `down`."""
    last = base.n_layers - 1
    vector = np.random.default_rng(0).standard_normal(base.hidden_size).astype(np.float32)
    tokens = top_tokens(base, vector[None], k=3)[0]
    ids = torch.tensor([[5, 9, 300]])
    with torch.no_grad():
        plain = base.model(ids).logits[0, -1]
        with inject(base.model, ControlVector({last: 1e4 * vector}, "llama")):
            pushed = base.model(ids).logits[0, -1]  # so strong that nothing else is left of the stream
    assert plain.shape == pushed.shape
    order = pushed.argsort(descending=True).tolist()
    assert [token for token, _ in tokens["up"]] == [base.tokenizer.decode([each]) for each in order[:3]]
    assert [token for token, _ in tokens["down"]] == [base.tokenizer.decode([each]) for each in order[:-4:-1]]
    scores = ((pushed - pushed.mean()) / pushed.std()).tolist()
    expected = {"up": [scores[each] for each in order[:3]], "down": [scores[each] for each in order[:-4:-1]]}
    for way, scored in expected.items():
        np.testing.assert_allclose([score for _, score in tokens[way]], scored, rtol=1e-2)
