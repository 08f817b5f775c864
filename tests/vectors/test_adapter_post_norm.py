"""An adapter beside a map whose output is normalised before it reaches the stream: what torch's own RMS norm makes of it."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from transformers import AutoModelForCausalLM

from irm_lite.base.architecture import decoder_layers
from irm_lite.core.errors import InputError
from irm_lite.core.files.gguf_header import read_header
from irm_lite.llamacpp.module_inputs import WatchedRuntime
from irm_lite.steering.control_vector import ControlVector
from irm_lite.steering.injection import inject
from irm_lite.vectors.adapter.closed_form import ClosedForm, closed_form, spread
from irm_lite.vectors.adapter.inputs import LlamaCppSource, Text
from irm_lite.vectors.adapter.job import job_of_irm
from irm_lite.vectors.adapter.place import post_norms
from irm_lite.vectors.adapter.post_norm import FLOORS, PostNorm
from support.zoo_ggufs import write_zoo
from zoo.configs import ZOO
from zoo.models import tiny_model

SIZE, WIDTH, TOKENS = 512, 32, 12
STRENGTHS = (-1.0, 0.5, 1.0, 1.5)
READ_BY = np.random.default_rng(3).uniform(0.2, 5, SIZE).astype(np.float32)  # the gain of the norm that reads the stream next


class Planted:
    """A block whose last map reads its own output's size among noise, and puts out noise of that size."""

    def __init__(self) -> None:
        generator = np.random.default_rng(0)
        sizes = generator.uniform(0.1, 10, 64 * TOKENS)
        outputs = generator.standard_normal((len(sizes), SIZE))
        outputs *= (sizes / np.sqrt(np.square(outputs).mean(1)))[:, None]
        noise = generator.standard_normal((len(sizes), WIDTH - 1)) * sizes[:, None]
        self.inputs = np.concatenate([sizes[:, None], noise], 1).astype(np.float32)
        self.outputs = outputs.astype(np.float32)

    def read(self, modules: Any, texts: Any) -> Any:
        tokens = sum(len(text.ids) for text in texts)
        return dict.fromkeys(modules, self.inputs[:tokens])

    def put_out(self, modules: Any, texts: Any) -> Any:
        tokens = sum(len(text.ids) for text in texts)
        return dict.fromkeys(modules, self.outputs[:tokens])


def gains(least: float = 0.5) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(1).uniform(least, 2, SIZE).astype(np.float32)


def direction(size: float) -> np.ndarray[Any, np.dtype[np.float32]]:
    return (size * np.random.default_rng(2).standard_normal(SIZE)).astype(np.float32)


def made(source: Planted, norm: PostNorm, wanted: Any) -> ClosedForm:
    texts = spread([(list(range(TOKENS)), 3) for _ in range(64)])
    return closed_form(source, {1: wanted}, texts, norms={1: norm})


def moved(source: Planted, norm: PostNorm, found: ClosedForm, strength: float) -> torch.Tensor:
    """By torch: how far the stream is moved by the adapter at this strength, (T, H), a unit of strength."""
    factors = found.factors["blk.1.ffn_down"]
    gain, outputs = torch.from_numpy(norm.gain).double(), torch.from_numpy(source.outputs).double()
    beside = torch.from_numpy(source.inputs @ factors.a.T @ factors.b.T).double()
    plain, steered = (F.rms_norm(each, (SIZE,), gain, norm.epsilon) for each in (outputs, outputs + strength * beside))
    return (steered - plain) / strength


@pytest.mark.parametrize("strength", STRENGTHS)
def test_the_stream_moves_by_the_vector_behind_the_norm(strength: float) -> None:
    source, norm, wanted = Planted(), PostNorm(gains(), 1e-6, READ_BY), direction(0.1)
    found = made(source, norm, wanted)
    by_torch = moved(source, norm, found, strength)
    read = torch.from_numpy(READ_BY)
    missed = (read * (by_torch.mean(0) - torch.from_numpy(wanted))).square().sum()
    assert float(missed / np.square(READ_BY * wanted).sum()) < 0.01
    errors = (read * (by_torch - torch.from_numpy(wanted))).square().sum(1) / float(np.square(READ_BY * wanted).sum())
    telling = np.arange(48 * TOKENS, 64 * TOKENS).reshape(16, TOKENS)
    at = [number for number, each in enumerate(spread([([1], 0)] * 64)[48:]) if each.strength == strength]
    assert found.fits[0].by_strength[strength] == pytest.approx(float(errors[telling[at].ravel()].mean()), rel=1e-3)
    assert found.fits[0].error < 0.05


def test_the_second_order_is_that_of_the_derivation() -> None:
    """s q g (B - n <n, B>) at first order; at second the block's own part and B both lose what the norm divides by more."""
    source, norm, wanted = Planted(), PostNorm(gains(), 1e-6, READ_BY), direction(0.1)
    n = (source.outputs / norm.sizes(source.outputs)[:, None]).astype(np.float64)
    b = norm.before(wanted, 0.03).astype(np.float64)
    along, power = n @ b[:, None] / SIZE, np.mean(b**2)
    q = np.ones(len(n), np.float32)
    first = norm.gain * (b - along * n)
    second = norm.gain * (n * (1.5 * along**2 - 0.5 * power) - along * b)
    for s, part in ((0.01, first), (-0.01, first)):
        found = norm.added(n.astype(np.float32), q, b.astype(np.float32), np.full(len(n), s, np.float32))
        left = np.linalg.norm(found - part)
        assert left < 2e-3 * np.linalg.norm(part)
        assert np.linalg.norm(found - part - s * second) < 0.02 * left


def test_a_gain_next_to_nothing_does_not_take_the_others_away() -> None:
    """The floor that the texts choose: without one the vector would be one channel's alone."""
    gain = gains()
    gain[:4] = 1e-4
    norm, wanted = PostNorm(gain, 1e-6, READ_BY), direction(0.1)
    found = made(source := Planted(), norm, wanted)
    assert found.fits[0].floor in FLOORS
    assert found.fits[0].error < 0.05
    beside, ones = norm.before(wanted, 0.0), np.ones(64 * TOKENS, np.float32)
    without = norm.behind(norm.added(source.outputs / norm.sizes(source.outputs)[:, None], ones, beside, ones), wanted)
    assert float(without.errors.mean()) > 0.5


def test_an_irm_behind_a_norm_is_refused_before_any_work(tmp_path: Path) -> None:
    tiny = next(each for each in ZOO if each.name == "olmo2")
    base: Any = SimpleNamespace(model=tiny_model(tiny), fingerprint=SimpleNamespace(architecture="olmo2"))
    run: Any = SimpleNamespace(irm=SimpleNamespace(site="block", layers=(1, 2)))
    with pytest.raises(InputError, match="normalises what its blocks add"):
        job_of_irm(run, base, tmp_path / "a.gguf", None)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gemma3", "olmo2"])
def test_a_tiny_models_block_adds_what_is_told(name: str, tmp_path: Path) -> None:
    """In the model itself, by hooks: block 1's step under the adapter, beside that of the vector."""
    folder, gguf = write_zoo(name, tmp_path)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    generator = np.random.default_rng(0)
    wanted = (0.1 * generator.standard_normal(64)).astype(np.float32)
    texts = spread([(generator.integers(3, 600, 24).tolist(), 1) for _ in range(32)])
    vector = ControlVector({1: wanted}, read_header(gguf).architecture)
    norms = post_norms(read_header(gguf), (1,))
    with WatchedRuntime(gguf, n_ctx=64) as runtime:
        source = LlamaCppSource(runtime, vector)
        found = closed_form(source, dict(vector.directions), texts, norms=norms)
        outputs = source.put_out(["blk.1.ffn_down"], texts[:1])["blk.1.ffn_down"]
    told_at: dict[float, list[Any]] = {text.strength: [] for text in texts[-8:]}
    factors = found.factors["blk.1.ffn_down"]
    block: Any = decoder_layers(model)[1]
    following = {"gemma3": "model.layers.2.input_layernorm.weight"}.get(name)  # stored less one; OLMo 2 has none
    reads = np.ones(64) if following is None else model.state_dict()[following].numpy() + 1
    for text in texts[-8:]:
        if text.strength:
            plain, steered = after(model, block, text, None), after(model, block, text, (factors.a, factors.b * text.strength))
            step = ((steered - plain) / text.strength).numpy() - wanted
            told_at[text.strength].append(np.square(step * reads).sum(1) / np.square(wanted * reads).sum())
    for strength, errors in told_at.items():
        if errors:
            assert found.fits[0].by_strength[strength] == pytest.approx(np.concatenate(errors).mean(), rel=0.02)
    kept: list[torch.Tensor] = []
    handle = block.mlp.down_proj.register_forward_hook(lambda _module, _args, output: kept.append(output[0]))
    with torch.no_grad(), inject(model, vector, strength=texts[0].strength):
        model(torch.tensor([texts[0].ids]))
    handle.remove()
    np.testing.assert_allclose(outputs, kept[0].numpy(), atol=3e-3 * float(kept[0].abs().max()))


def after(model: Any, block: Any, text: Text, factors: Any) -> torch.Tensor:
    """The stream after the block, (T, H)."""
    seen: list[torch.Tensor] = []

    def beside(_module: Any, args: Any, output: Any) -> Any:
        return output if factors is None else output + args[0] @ torch.from_numpy(factors[0].T) @ torch.from_numpy(factors[1].T)

    def keep(_module: Any, _args: Any, output: Any) -> None:
        seen.append((output[0] if isinstance(output, tuple) else output)[0])

    handles = [block.mlp.down_proj.register_forward_hook(beside), block.register_forward_hook(keep)]
    with torch.no_grad():
        model(torch.tensor([text.ids]))
    for handle in handles:
        handle.remove()
    return seen[0].reshape(len(text.ids), -1)
