"""A speaker in transformers against one in llama.cpp on the same weights, steered and not."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from irm_lite.base.generate import generate, generate_ids
from irm_lite.base.load import Base, load_base
from irm_lite.base.speaker import BaseSpeaker
from irm_lite.data.dataset import load_dataset
from irm_lite.data.encoding import Sample, encode_all
from irm_lite.llamacpp import Runtime
from irm_lite.llamacpp.parallel import n_ctx_for
from irm_lite.scoring.speaker import Decoding
from irm_lite.steering.control_vector import ControlVector
from irm_lite.steering.injection import inject
from irm_lite.vectors.speakers import LlamaCppSpeaker

GREEDY = Decoding("greedy", new_tokens=20)
DRAWN = Decoding("sampled", temperature=1.2, seed=3, new_tokens=20)


@pytest.fixture(scope="module")
def base(llama_folder: Path) -> Base:
    return load_base(str(llama_folder), quant="none", dtype="float32", device="cpu")


@pytest.fixture(scope="module")
def samples(base: Base) -> list[Sample]:
    return encode_all(base.tokenizer, load_dataset("joy").test[:6], 512)[0]


@pytest.fixture(scope="module")
def runtime(llama_gguf: Path) -> Iterator[Runtime]:
    with Runtime(llama_gguf, n_ctx=n_ctx_for(110, 4), n_sequences=4) as loaded:
        yield loaded


@pytest.mark.parametrize("strength", [0.0, 1.0])
def test_both_runtimes_say_the_same_and_find_it_equally_likely(
    strength: float, base: Base, samples: list[Sample], runtime: Runtime
) -> None:
    generator = np.random.default_rng(0)
    vector = ControlVector({layer: generator.standard_normal(64).astype(np.float32) for layer in (1, 2)}, "llama") * strength
    here = BaseSpeaker(base, partial(inject, base.model, vector))
    there = LlamaCppSpeaker(runtime, lambda: runtime.set_vector(vector))
    np.testing.assert_allclose(here.nll(samples), there.nll(samples), rtol=2e-3)
    written, expected = here.answers(samples, GREEDY), there.answers(samples, GREEDY)
    # Later a near tie may fall otherwise: llama.cpp keeps its cache in half precision.
    assert [each.ids[:6] for each in written] == [each.ids[:6] for each in expected]


def test_a_prompt_beside_longer_ones_is_answered_as_alone(base: Base, samples: list[Sample]) -> None:
    prompts = [each.ids[: each.answer_start] for each in samples]
    assert len({len(each) for each in prompts}) > 1
    together = generate_ids(base, prompts, 12)
    assert together == [generate_ids(base, [each], 12)[0] for each in prompts]
    text = generate(base, samples[0].example.messages[:-1], 12)
    assert text == base.tokenizer.decode(together[0], skip_special_tokens=True).strip()


def test_drawn_answers_come_from_the_seed_and_leave_chance_as_it_was(base: Base, samples: list[Sample]) -> None:
    speaker = BaseSpeaker(base)
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    first = speaker.answers(samples, DRAWN)
    assert torch.equal(torch.rand(3), expected)
    assert first == speaker.answers(samples, DRAWN)
    assert first != speaker.answers(samples, Decoding("sampled", temperature=1.2, seed=4, new_tokens=20))
    assert all(len(each.ids) <= 20 for each in first)
