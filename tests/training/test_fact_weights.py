"""Words that carry the fact: the tokens that are told by a second derivation, and a loss in which they count as they should."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from irm_lite.base.load import Base
from irm_lite.config import TrainConfig
from irm_lite.data.dataset import load_dataset
from irm_lite.data.encoding import Sample, encode_all
from irm_lite.runs.directory import RunDirectory
from irm_lite.scoring.recall import key_spans, key_words
from irm_lite.steering.injection import inject
from irm_lite.steering.irm import build_irm
from irm_lite.training.setup.fact_weights import with_fact_weights
from irm_lite.training.step.injected_model import InjectedModel
from irm_lite.training.train import train


@pytest.fixture(scope="module")
def samples(llama_base: Base) -> list[Sample]:
    toned = encode_all(llama_base.tokenizer, load_dataset("anger").train[:20], 512)[0]
    plain = {each.subject: each for each in load_dataset("neutral").train}
    return with_fact_weights(toned, plain, partial(llama_base.tokenizer.decode, skip_special_tokens=True), 4.0)


def test_key_words_are_found_where_they_stand() -> None:
    toned, plain = load_dataset("anger").train[0], load_dataset("neutral").train[0]
    found = {toned.answer[start:end].casefold() for start, end in key_spans(toned.answer, key_words(toned, plain))}
    assert found == {"away", "gas", "irritates", "sulfur", "tears", "wash"}  # "onions" and "eyes" are in the question


def test_tokens_of_key_words_count_more_and_others_once(llama_base: Base, samples: list[Sample]) -> None:
    """Against the tokenizer's own offsets in the rendered text."""
    plain = {each.subject: each for each in load_dataset("neutral").train}
    told = 0
    for sample in samples:
        assert len(sample.weights) in (0, sample.n_answer)
        answer, ids = sample.example.answer, sample.ids[sample.answer_start :]
        spans = key_spans(answer, key_words(sample.example, plain[sample.example.subject]))
        heavy = [token for token, weight in zip(ids, sample.weights or [1.0] * len(ids), strict=True) if weight == 4.0]
        joined = "".join(llama_base.tokenizer.decode([token]).strip() for token in heavy)
        assert all(answer[start:end] in joined for start, end in spans), sample.example.answer
        assert len(heavy) <= sum(end - start for start, end in spans)
        told += len(heavy)
    assert told > 20


def test_the_loss_is_the_weighted_mean(llama_base: Base, samples: list[Sample]) -> None:
    some = samples[:3]
    irm = build_irm("static", llama_base.hidden_size, (1, 2), "block")
    total = weights = 0.0
    with inject(llama_base.model, irm) as injection:
        found = InjectedModel(llama_base, injection)(some, num_items=sum(each.weight for each in some))
        for sample in some:
            logits = llama_base.model(torch.tensor([sample.ids])).logits[0, sample.answer_start - 1 : -1]
            nll = F.cross_entropy(logits, torch.tensor(sample.ids[sample.answer_start :]), reduction="none")
            total += (torch.tensor(sample.weights) * nll).sum().item()
            weights += sum(sample.weights)
    assert found.item() == pytest.approx(total / weights, rel=1e-5)


@pytest.mark.parametrize(("data", "differs"), [("anger", True), ("neutral", False)])
def test_it_changes_what_is_learned_where_there_is_a_neutral_answer(
    llama_folder: Path, tmp_path: Path, data: str, differs: bool
) -> None:
    settings: dict[str, Any] = {"quant": "none", "device": "cpu", "max_steps": 2, "batch_size": 4, "sample_tokens": 0, "rank": 4}
    losses = []
    for weight in (1.0, 4.0):
        run = tmp_path / str(weight)
        train(TrainConfig(model=str(llama_folder), data=data, fact_weight=weight, **settings), run)
        losses.append([event["loss"] for event in RunDirectory(run).events.read() if event["kind"] == "step"])
    assert (losses[0] != losses[1]) is differs
