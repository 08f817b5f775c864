"""What the model says again: found by a second derivation, priced as the formula says, and said less after training with it."""

import dataclasses
import json
from collections.abc import Sequence
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
from irm_lite.data.example import Example
from irm_lite.runs.directory import RunDirectory
from irm_lite.scoring.speaker import Answer, Decoding
from irm_lite.steering.injection import inject
from irm_lite.steering.irm import build_irm
from irm_lite.training.step.injected_model import InjectedModel
from irm_lite.training.step.own_repeats import EVERY, LOOPS, PHRASES, OwnRepeats, Repeat, loop_places, read_repeats, stock_places

TEXTS = st.lists(st.lists(st.integers(0, 2), max_size=8), max_size=14)


@given(st.lists(st.integers(0, 2), max_size=30))
def test_a_place_is_repeated_where_its_three_tokens_stood_before(ids: list[int]) -> None:
    text = "".join(map(str, ids))
    assert loop_places(ids) == [at for at in range(2, len(text)) if text.find(text[at - 2 : at + 1]) < at - 2]


@given(TEXTS, TEXTS)
def test_a_stock_phrase_is_in_more_texts_than_in_the_data(texts: list[list[int]], data: list[list[int]]) -> None:
    """Of texts as strings of digits, phrase by phrase."""
    said, usual = (["".join(map(str, ids)) for ids in each] for each in (texts, data))

    def is_stock(phrase: str) -> bool:
        count = sum(phrase in text for text in said)
        return count >= 3 and count > (0.1 + sum(phrase in text for text in usual) / max(len(usual), 1)) * len(said)

    found = [
        sorted({at + each for at in range(len(text) - 3) if is_stock(text[at : at + 4]) for each in range(4)}) for text in said
    ]
    assert stock_places(texts, data) == found


@pytest.fixture(scope="module")
def samples(llama_base: Base) -> list[Sample]:
    return encode_all(llama_base.tokenizer, load_dataset("anger").train[:6], 512)[0]


def test_unlikelihood_is_of_the_places_alone(llama_base: Base, samples: list[Sample]) -> None:
    """Against transformers on each text alone; gradients reach the IRM."""
    loops = [Repeat(samples[0], [1, 4]), Repeat(samples[1], [0, 2, 3])]
    irm = build_irm("static", llama_base.hidden_size, (1, 2), "block")
    torch.nn.init.normal_(irm.get_parameter("vectors"), std=0.1)
    prices = []
    with inject(llama_base.model, irm) as injection:
        for loop in loops:
            logits = llama_base.model(torch.tensor([loop.sample.ids])).logits[0]
            for place in loop.places:
                at = loop.sample.answer_start + place
                prices.append(-torch.log1p(-logits[at - 1].double().softmax(-1)[loop.sample.ids[at]]))
        found = InjectedModel(llama_base, injection).unlikelihood(loops)
        torch.autograd.backward(found)
    # each of the five is a difference of two numbers near 6, whose neighbours in float32 are 4.8e-7 away
    assert found.item() == pytest.approx(torch.stack(prices).sum().item(), abs=2.4e-6)
    assert irm.get_parameter("vectors").grad is not None


def test_it_is_asked_after_a_third_every_ten_steps_whatever_went_before(llama_base: Base, samples: list[Sample]) -> None:
    own = OwnRepeats(llama_base, samples, max_steps=100, seed=3)
    assert [step for step in range(100) if own.due(step)] == list(range(30, 100, EVERY))
    long = OwnRepeats(llama_base, samples, max_steps=1000, seed=3)
    assert [step for step in range(1000) if long.due(step)] == list(range(300, 1000, 66))
    assert not any(OwnRepeats(llama_base, samples, max_steps=EVERY, seed=3).due(step) for step in range(EVERY))  # too short to tell
    assert own.of_step(31) == {}
    own.ask(40)
    assert own.newest
    again = OwnRepeats(llama_base, samples, max_steps=100, seed=3)
    again.newest = read_repeats(json.loads(json.dumps({**own.state(), "rows": [1]})))  # as a checkpoint keeps it
    taken = [own.of_step(step) for step in range(41, 50)]
    assert [again.of_step(step) for step in range(41, 50)] == taken
    seen = {tuple(each.sample.ids) for sorts in taken for repeats in sorts.values() for each in repeats}
    assert seen == {tuple(each.sample.ids) for repeats in own.newest.values() for each in repeats}  # each has its turn


class Parrot:
    """Answers with `ids`, whatever is asked, behind the question's last token, and keeps what it was asked."""

    def __init__(self, *ids: int) -> None:
        self.ids = ids
        self.asked: list[Sample] = []

    def answers(self, questions: Sequence[Sample], decoding: Decoding) -> list[Answer]:
        self.asked = list(questions)
        return [Answer("", (at, *self.ids), True) for at, _ in enumerate(questions)]


def test_what_comes_in_every_answer_is_kept_and_no_loop(llama_base: Base, samples: list[Sample]) -> None:
    own = OwnRepeats(llama_base, samples, max_steps=100, seed=3)
    parrot = own._speaker = Parrot(50, 51, 52, 53)  # type: ignore[assignment]
    own.ask(40)
    assert own.newest is not None
    assert own.newest[LOOPS] == []
    assert len(own.newest[PHRASES]) == 24 < len(parrot.asked)
    assert {tuple(each.places) for each in own.newest[PHRASES]} == {(1, 2, 3, 4)}
    asked = parrot.asked[0]
    assert own.newest[PHRASES][0].sample.ids == [*asked.ids[: asked.answer_start], 0, 50, 51, 52, 53]
    assert {sort: len(repeats) for sort, repeats in own.of_step(41).items()} == {PHRASES: 3}
    usual = OwnRepeats(llama_base, samples, max_steps=100, seed=3)
    usual._speaker = parrot  # type: ignore[assignment]
    usual._known = [[50, 51, 52, 53, 54]] * 10  # people say it too
    usual.ask(40)
    assert usual.newest == {LOOPS: [], PHRASES: []}
    assert usual.of_step(41) == {}


def test_the_same_question_is_asked_once(llama_base: Base, samples: list[Sample]) -> None:
    """Its answer is the same each time, which makes no phrase of it."""
    start = samples[0].answer_start
    often = [dataclasses.replace(samples[0], ids=[*samples[0].ids[:start], 40 + at]) for at in range(20)]
    own = OwnRepeats(llama_base, [*often, *samples[1:]], max_steps=100, seed=3)
    parrot = own._speaker = Parrot(50)  # type: ignore[assignment]
    own.ask(40)
    prompts = [tuple(each.ids[: each.answer_start]) for each in parrot.asked]
    assert len(set(prompts)) == len(prompts)
    assert {tuple(each.ids[: each.answer_start]) for each in samples} < set(prompts)


def test_an_older_checkpoint_knows_no_phrases() -> None:
    assert read_repeats({"loops": [[[1, 2, 3], 1, [1]]]}) == {
        LOOPS: [Repeat(Sample([1, 2, 3], 1, Example((), None, "")), [1])],
        PHRASES: [],
    }
    assert read_repeats({"loops": None}) is None
    assert read_repeats({"phrases": [[[1, 2, 3], 1, [1]]]}) == {
        LOOPS: [],
        PHRASES: [Repeat(Sample([1, 2, 3], 1, Example((), None, "")), [1])],
    }
    assert read_repeats({}) is None


@pytest.mark.parametrize("sort", [LOOPS, PHRASES])
@pytest.mark.parametrize(
    "damaged", [[[[1, 2], 1]], [[[1, 2, 3], 1, [5]]], [[[1, -2, 3], 1, [1]]], [[["a", 2, 3], 1, [1]]], [[[1, 2], 1, []]], 7, [3]]
)
def test_damaged_ones_of_a_checkpoint_are_refused(sort: str, damaged: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        read_repeats({LOOPS: [], sort: damaged})


def test_a_random_model_loops_less_for_it(llama_base: Base, samples: list[Sample]) -> None:
    """Untrained, its greedy answers soon go round; a few steps against its loops, and fewer of their tokens come again."""
    irm = build_irm("static", llama_base.hidden_size, (1, 2), "block")
    own = OwnRepeats(llama_base, samples, max_steps=20, seed=0)
    with inject(llama_base.model, irm) as injection:
        model = InjectedModel(llama_base, injection)
        optimiser = torch.optim.Adam(irm.parameters(), 0.02)
        own.ask(10)
        assert own.newest
        loops = own.newest[LOOPS]
        assert loops
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


def test_each_sort_has_its_own_price(llama_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers without a loop that share a phrase: the price on loops changes nothing, that on phrases the step after the asking."""
    from irm_lite.training.train import train

    monkeypatch.setattr("irm_lite.training.step.own_repeats.BaseSpeaker", lambda base: Parrot(50, 51, 52, 53))
    settings: dict[str, Any] = {"quant": "none", "device": "cpu", "max_steps": 11, "batch_size": 2, "sample_tokens": 0}

    def factors(loops: float, phrases: float) -> dict[str, torch.Tensor]:
        config = TrainConfig(model=str(llama_folder), irm="lora", loop_penalty=loops, phrase_penalty=phrases, **settings)
        return train(config, tmp_path / f"{loops}-{phrases}").irm.state_dict()

    free, loops, both = factors(0, 0), factors(0.5, 0), factors(0.5, 0.5)
    assert all(torch.equal(free[name], loops[name]) for name in free)
    assert any(not torch.equal(free[name], both[name]) for name in free)


@pytest.mark.slow
def test_own_answers_are_no_part_of_a_step(llama_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the paper's penalty nor the live heatmap hears what is written between two steps, whose rows are shorter."""
    from irm_lite.training.step import injected_model
    from irm_lite.training.train import train

    monkeypatch.setattr(injected_model, "LIVE_SECONDS", 0.0)
    asked, ask = [], OwnRepeats.ask

    def watched(self: OwnRepeats, step: int) -> None:
        asked.append(step)
        ask(self, step)

    monkeypatch.setattr(OwnRepeats, "ask", watched)
    settings: dict[str, Any] = {"quant": "none", "device": "cpu", "max_steps": 12, "batch_size": 2, "sample_tokens": 8}
    run = train(TrainConfig(model=str(llama_folder), irm="static", l1=1e-4, **settings), tmp_path / "run").directory
    end = run.events.finished()
    assert end is not None
    assert (end["step"], asked) == (12, [10])
