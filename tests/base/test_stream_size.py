"""The stream's size after each block, against transformers' own hidden states one sample at a time; and no outlier moves it."""

import numpy as np
import pytest
import torch

from irm_lite.base.load import Base
from irm_lite.base.stream_size import stream_sizes
from irm_lite.data.dataset import load_dataset
from irm_lite.data.encoding import Sample, encode_all


@pytest.fixture(scope="module")
def samples(llama_base: Base) -> list[Sample]:
    return encode_all(llama_base.tokenizer, load_dataset("joy").train[:4], 512)[0]


def test_it_is_the_median_magnitude_at_answer_positions(llama_base: Base, samples: list[Sample]) -> None:
    by_block: list[list[np.ndarray]] = [[] for _ in range(llama_base.n_layers)]
    for sample in samples:
        with torch.no_grad():
            states = llama_base.model(torch.tensor([sample.ids]), output_hidden_states=True).hidden_states
        for block in range(llama_base.n_layers - 1):  # transformers puts the last block's through the final norm
            by_block[block].append(states[block + 1][0, sample.answer_start - 1 : -1].numpy())
    found = stream_sizes(llama_base, samples)
    for block in range(llama_base.n_layers - 1):
        size = 1.4826 * np.median(np.abs(np.concatenate(by_block[block])))
        assert found[block] == pytest.approx(size, rel=2**-8)  # bfloat16's rounding
    assert found == torch.tensor(found).to(torch.bfloat16).float().tolist()


def test_a_massive_activation_does_not_count(llama_base: Base, samples: list[Sample]) -> None:
    before = stream_sizes(llama_base, samples)

    def outlier(_module: object, _args: object, output: torch.Tensor) -> torch.Tensor:
        output[..., 3] += 1e4
        return output

    handle = llama_base.model.model.layers[-1].register_forward_hook(outlier)
    try:
        after = stream_sizes(llama_base, samples)
    finally:
        handle.remove()
    assert after[-1] == pytest.approx(before[-1], rel=0.1)
