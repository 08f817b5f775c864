"""Several texts at once against one at a time, with vectors and with an IRM."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from irm_lite.base.load import load_tokenizer
from irm_lite.core.errors import InputError
from irm_lite.data.dataset import Example, load_dataset
from irm_lite.data.encoding import Sample, encode_all
from irm_lite.llamacpp import Runtime
from irm_lite.llamacpp.likelihood import answer_nlls
from irm_lite.llamacpp.parallel import generate_together, n_ctx_for, nll_together
from irm_lite.llamacpp.sampling import Sampling
from irm_lite.steering.control_vector import ControlVector
from irm_lite.steering.irm import build_irm
from support.zoo_ggufs import write_zoo


@pytest.fixture(scope="module")
def samples(llama_gguf: Path) -> list[Sample]:
    """Of different lengths; each question with its neutral and its angry answer."""
    tokenizer = load_tokenizer(str(llama_gguf))
    pairs = zip(load_dataset("neutral").test[:9], load_dataset("anger").test[:9], strict=True)
    return encode_all(tokenizer, [each for pair in pairs for each in pair], 512)[0]


def vector() -> ControlVector:
    generator = np.random.default_rng(0)
    return ControlVector({layer: (0.3 * generator.standard_normal(64)).astype(np.float32) for layer in (1, 2)}, "llama")


@pytest.fixture(scope="module")
def runtimes(llama_gguf: Path) -> Iterator[tuple[Runtime, Runtime]]:
    """One text at a time, and four; both with an IRM that does something, and micro-batches that cut the prompts."""
    irm = build_irm("static", 64, (0, 2), "attn")
    torch.nn.init.normal_(next(irm.parameters()), generator=torch.Generator().manual_seed(0))
    with (
        Runtime(llama_gguf, irm=irm, n_ctx=256) as alone,
        Runtime(llama_gguf, irm=irm, n_ctx=n_ctx_for(120, 4), n_batch=48, n_sequences=4) as together,
    ):
        yield alone, together


@pytest.mark.parametrize("steering", ["base", "irm", "vector"])
@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_texts_are_those_written_alone(
    steering: str, temperature: float, runtimes: tuple[Runtime, Runtime], samples: list[Sample]
) -> None:
    prompts = [each.ids[: each.answer_start] for each in samples[::2]]
    for runtime in runtimes:
        assert runtime.dynamic is not None
        runtime.dynamic.enabled = steering == "irm"
        runtime.set_vector(vector() if steering == "vector" else None)
    alone, together = runtimes
    reports: list[tuple[int, int]] = []
    got = generate_together(together, prompts, 24, Sampling(temperature, seed=5), lambda done, of, what: reports.append((done, of)))
    for number, prompt in enumerate(prompts):
        expected = []
        for token in alone.generate_tokens(prompt, max_new_tokens=24, temperature=temperature, seed=5 + number):
            expected.append(token)
            if alone.model.ends_turn(token):
                break
        assert got[number].tokens == expected
    assert reports[-1] == (len(prompts), len(prompts))
    assert generate_together(together, prompts, 24, Sampling(temperature, seed=5)) == got


@pytest.mark.parametrize("steering", ["base", "irm", "vector"])
def test_nlls_are_those_measured_alone(steering: str, runtimes: tuple[Runtime, Runtime], samples: list[Sample]) -> None:
    """Also where several answers share a prompt and begin alike, and where one is another's beginning."""
    first = samples[0]
    longer = [first, Sample([*first.ids, 7, 8], first.answer_start, first.example), first, *samples]
    for runtime in runtimes:
        assert runtime.dynamic is not None
        runtime.dynamic.enabled = steering == "irm"
        runtime.set_vector(vector() if steering == "vector" else None)
    alone, together = runtimes
    np.testing.assert_allclose(nll_together(together, longer), answer_nlls(alone, longer), rtol=2e-3)
    np.testing.assert_allclose(nll_together(alone, longer), answer_nlls(alone, longer), rtol=2e-3)


def test_what_all_begin_with_goes_through_the_model_once(
    runtimes: tuple[Runtime, Runtime], samples: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, together = runtimes
    texts = [each.ids for each in samples[::2]]
    start = next(at for at in range(len(texts[0])) if len({text[at] for text in texts}) > 1)
    assert start >= 8  # of the chat template
    decode, read = together.decode, []

    def counting(placed: list[tuple[int, int, int]], *rest: Any, **more: Any) -> Any:
        read.append(len(placed))
        return decode(placed, *rest, **more)

    monkeypatch.setattr(together, "decode", counting)
    nll_together(together, samples[::2])
    assert sum(read) == start + sum(len(text) - 1 - start for text in texts)
    read.clear()
    generate_together(together, [each.ids[: each.answer_start] for each in samples[::2]], 1)
    assert sum(read) == start + sum(each.answer_start - start for each in samples[::2])


@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_what_is_written_brings_its_own_nll(temperature: float, runtimes: tuple[Runtime, Runtime], samples: list[Sample]) -> None:
    alone, together = runtimes
    asked = samples[::2]
    found = generate_together(together, [each.ids[: each.answer_start] for each in asked], 12, Sampling(temperature), measured=True)
    said = [each.tokens[:-1] if together.model.ends_turn(each.tokens[-1]) else each.tokens for each in found]
    read = [
        Sample([*each.ids[: each.answer_start], *ids], each.answer_start, each.example)
        for each, ids in zip(asked, said, strict=True)
    ]
    np.testing.assert_allclose(np.array([each.nll for each in found], dtype=np.float64), answer_nlls(alone, read)[:, 1], rtol=2e-3)


def test_what_does_not_fit_is_refused_and_nothing_is_something(runtimes: tuple[Runtime, Runtime], samples: list[Sample]) -> None:
    alone, together = runtimes
    assert generate_together(together, [], 8) == []
    assert nll_together(together, []).shape == (0, 2)
    with pytest.raises(InputError, match="do not fit into the context"):
        generate_together(alone, [[5] * 300], 8)
    with pytest.raises(InputError, match="do not fit into the context"):
        nll_together(alone, [Sample([5] * 300, 1, Example((), "x", "here"))])
    with pytest.raises(InputError, match="do not fit into the context"):  # what they begin with does not either
        nll_together(together, [Sample([5] * 900, 890, Example((), "x", "here"))] * 2)


@pytest.mark.slow
def test_recurrent_blocks_with_an_irm_read_answers_of_different_lengths(tmp_path: Path, samples: list[Sample]) -> None:
    """llama.cpp runs its graph more than once for what they are given of unequal sequences."""
    _, gguf = write_zoo("lfm2", tmp_path)
    first = samples[0]
    asked = [Sample([*first.ids, *range(5, 5 + more)], first.answer_start, first.example) for more in (0, 3, 1)]
    irm = build_irm("static", 64, (0, 1), "block")
    torch.nn.init.normal_(next(irm.parameters()), generator=torch.Generator().manual_seed(0))
    prompt = first.ids[: first.answer_start]
    with Runtime(gguf, irm=irm, n_ctx=256) as alone, Runtime(gguf, irm=irm, n_ctx=n_ctx_for(120, 4), n_sequences=4) as together:
        expected = answer_nlls(alone, asked)
        np.testing.assert_allclose(nll_together(together, asked), expected, rtol=2e-3)
        written = generate_together(together, [prompt, prompt[:-1], prompt], 5)
        assert written[0].tokens == list(alone.generate_tokens(prompt, max_new_tokens=5))
        assert alone.dynamic is not None
        alone.dynamic.enabled = False
        assert not np.allclose(answer_nlls(alone, asked), expected, rtol=5e-3)
