"""The model's own loops: found by a second derivation, priced as the formula says, and written less after a training with them."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from irm_lite.base.load import Base
from irm_lite.config import TrainConfig
from irm_lite.data.dataset import load_dataset
from irm_lite.data.encoding import Sample, encode_all
from irm_lite.runs.directory import RunDirectory
from irm_lite.steering.injection import inject
from irm_lite.steering.irm import build_irm
from irm_lite.training.step.injected_model import InjectedModel
from irm_lite.training.step.own_loops import EVERY, Loop, OwnLoops, read_loops, repeated


@given(st.lists(st.integers(0, 2), max_size=30))
def test_a_place_is_repeated_where_its_three_tokens_stood_before(ids: list[int]) -> None:
    text = "".join(map(str, ids))
    assert repeated(ids) == [at for at in range(2, len(text)) if text.find(text[at - 2 : at + 1]) < at - 2]


@pytest.fixture(scope="module")
def samples(llama_base: Base) -> list[Sample]:
    return encode_all(llama_base.tokenizer, load_dataset("anger").train[:6], 512)[0]


def test_unlikelihood_is_of_the_places_alone(llama_base: Base, samples: list[Sample]) -> None:
    """Against transformers on each text alone; gradients reach the IRM."""
    loops = [Loop(samples[0], [1, 4]), Loop(samples[1], [0, 2, 3])]
    irm = build_irm("static", llama_base.hidden_size, (1, 2), "block")
    torch.nn.init.normal_(irm.get_parameter("vectors"), std=0.1)
    prices = []
    with inject(llama_base.model, irm) as injection:
        for loop in loops:
            logits = llama_base.model(torch.tensor([loop.sample.ids])).logits[0]
            for place in loop.places:
                at = loop.sample.answer_start + place
                prices.append(-torch.log(1 - logits[at - 1].softmax(-1)[loop.sample.ids[at]]))
        found = InjectedModel(llama_base, injection).unlikelihood(loops)
        torch.autograd.backward(found)
    assert found.item() == pytest.approx(torch.stack(prices).sum().item(), rel=1e-4)
    assert irm.get_parameter("vectors").grad is not None


def test_it_is_asked_after_a_third_every_ten_steps_whatever_went_before(llama_base: Base, samples: list[Sample]) -> None:
    own = OwnLoops(llama_base, samples, max_steps=100, seed=3)
    assert [step for step in range(100) if own.due(step)] == list(range(30, 100, EVERY))
    long = OwnLoops(llama_base, samples, max_steps=1000, seed=3)
    assert [step for step in range(1000) if long.due(step)] == list(range(300, 1000, 66))
    assert not any(OwnLoops(llama_base, samples, max_steps=EVERY, seed=3).due(step) for step in range(EVERY))  # too short to tell
    assert own.of_step(31) == []
    own.ask(40)
    assert own.newest
    again = OwnLoops(llama_base, samples, max_steps=100, seed=3)
    again.newest = read_loops(json.loads(json.dumps(own.state())))  # as a checkpoint keeps it
    taken = [own.of_step(step) for step in range(41, 50)]
    assert [again.of_step(step) for step in range(41, 50)] == taken
    seen = {tuple(loop.sample.ids) for loops in taken for loop in loops}
    assert seen == {tuple(loop.sample.ids) for loop in own.newest}  # each has its turn


@pytest.mark.parametrize(
    "damaged", [[[[1, 2], 1]], [[[1, 2, 3], 1, [5]]], [[[1, -2, 3], 1, [1]]], [[["a", 2, 3], 1, [1]]], [[[1, 2], 1, []]], 7, [3]]
)
def test_damaged_loops_of_a_checkpoint_are_refused(damaged: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        read_loops(damaged)


def test_a_random_model_loops_less_for_it(llama_base: Base, samples: list[Sample]) -> None:
    """Untrained, its greedy answers soon go round; a few steps against its loops, and fewer of their tokens come again."""
    irm = build_irm("static", llama_base.hidden_size, (1, 2), "block")
    own = OwnLoops(llama_base, samples, max_steps=20, seed=0)
    with inject(llama_base.model, irm) as injection:
        model = InjectedModel(llama_base, injection)
        optimiser = torch.optim.Adam(irm.parameters(), 0.02)
        own.ask(10)
        assert own.newest
        loops = own.newest
        before = model.unlikelihood(loops).item()
        for _ in range(10):
            optimiser.zero_grad()
            torch.autograd.backward(model.unlikelihood(loops))
            optimiser.step()
        assert model.unlikelihood(loops).item() < 0.5 * before


def test_an_older_run_goes_on_without(llama_folder: Path, tmp_path: Path) -> None:
    from irm_lite.training.train import train

    settings: dict[str, Any] = {"quant": "none", "device": "cpu", "max_steps": 1, "batch_size": 2, "sample_tokens": 0, "rank": 4}
    run = tmp_path / "run"
    train(TrainConfig(model=str(llama_folder), **settings), run)
    assert RunDirectory(run).config().loop_penalty == 0.5
    toml = (run / "run.toml").read_text()
    (run / "run.toml").write_text("\n".join(line for line in toml.splitlines() if not line.startswith("loop_penalty")))
    assert RunDirectory(run).config().loop_penalty == 0
