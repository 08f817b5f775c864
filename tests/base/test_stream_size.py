"""The stream's size after each block, against transformers' own hidden states one sample at a time; and no outlier moves it."""

from pathlib import Path

import numpy as np
import pytest
import torch

from irm_lite.base.load import Base, load_base
from irm_lite.base.stream_size import stream_sizes
from irm_lite.data.dataset import load_dataset
from irm_lite.data.encoding import Sample, encode_all


@pytest.fixture(scope="module")
def base(llama_folder: Path) -> Base:
    return load_base(str(llama_folder), quant="none", device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def samples(base: Base) -> list[Sample]:
    return encode_all(base.tokenizer, load_dataset("joy").train[:4], 512)[0]


def test_it_is_the_median_magnitude_at_answer_positions(base: Base, samples: list[Sample]) -> None:
    by_block: list[list[np.ndarray]] = [[] for _ in range(base.n_layers)]
    for sample in samples:
        with torch.no_grad():
            states = base.model(torch.tensor([sample.ids]), output_hidden_states=True).hidden_states
        for block in range(base.n_layers - 1):  # transformers puts the last block's through the final norm
            by_block[block].append(states[block + 1][0, sample.answer_start - 1 : -1].numpy())
    found = stream_sizes(base, samples)
    for block in range(base.n_layers - 1):
        size = 1.4826 * np.median(np.abs(np.concatenate(by_block[block])))
        assert found[block] == pytest.approx(size, rel=2**-8)  # bfloat16's rounding
    assert found == torch.tensor(found).to(torch.bfloat16).float().tolist()


def test_a_massive_activation_does_not_count(base: Base, samples: list[Sample]) -> None:
    before = stream_sizes(base, samples)

    def outlier(_module: object, _args: object, output: torch.Tensor) -> torch.Tensor:
        output[..., 3] += 1e4
        return output

    handle = base.model.model.layers[-1].register_forward_hook(outlier)
    try:
        after = stream_sizes(base, samples)
    finally:
        handle.remove()
    assert after[-1] == pytest.approx(before[-1], rel=0.1)
