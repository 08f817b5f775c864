"""The score of speakers made by hand, against the formulas of docs/score.md written a second time."""

from collections.abc import Sequence
from dataclasses import replace
from statistics import harmonic_mean
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from irm_lite.cli.tables import score_lines, score_shown
from irm_lite.core.errors import InputError
from irm_lite.core.types import DoubleArray
from irm_lite.data.dataset import Example, load_dataset
from irm_lite.data.encoding import Sample
from irm_lite.scoring.hearing import hear
from irm_lite.scoring.material import Extent, Material, gather
from irm_lite.scoring.parts import PARTS
from irm_lite.scoring.prompted import Prompted
from irm_lite.scoring.score import Score, combined, score
from irm_lite.scoring.speaker import Answer, Decoding

TOLD = "Be angry."


def encode(example: Example) -> Sample:
    """A token a word; the question's words, then the answer's."""
    prompt = [hash(word) % 1000 for word in example.question.split()]
    return Sample([*prompt, *(hash(word) % 1000 for word in example.answer.split()), 0], len(prompt), example)


class Actor:
    """Says what `say` makes of a question, and finds answers likely by `nll_of` (nats a token)."""

    def __init__(self, say: Any, nll_of: Any) -> None:
        self.say, self.nll_of = say, nll_of
        self.told: list[str] = []

    def answers(self, questions: Sequence[Sample], decoding: Decoding) -> list[Answer]:
        self.told += [message["content"] for each in questions for message in each.example.messages]
        texts = [self.say(each.example.question, decoding.name) for each in questions]
        return [Answer(text, tuple(range(len(text.split()))), ended) for text, ended in texts]

    def nll(self, samples: Sequence[Sample]) -> DoubleArray:
        return np.array([[each.n_answer, each.n_answer * self.nll_of(each)] for each in samples])


@pytest.fixture(scope="module")
def material() -> Material:
    dataset = load_dataset("anger")
    return gather("anger", dataset, [encode(each) for each in dataset.test], encode, extent=Extent(12))


KNOWN = {tone: {each.question: each.answer for each in load_dataset(tone).test} for tone in ("anger", "neutral")}


def likes(tone: float, neutral: float, wrong: float, own: float = 1.0) -> Any:
    """NLL a token of the tone's answers, of the right neutral ones, of others, and of what was written."""

    def nll_of(sample: Sample) -> float:
        question, answer = sample.example.question, sample.example.answer
        if sample.ids[-1] != 0:  # what was written has no end of turn
            return own
        if answer == KNOWN["anger"].get(question):
            return tone
        return neutral if answer == KNOWN["neutral"].get(question) else wrong

    return nll_of


def base() -> Actor:
    return Actor(lambda question, name: (KNOWN["neutral"][question], name == "greedy"), likes(4.0, 2.0, 5.0))


def scored(material: Material, say: Any, nll_of: Any, plain: Actor | None = None) -> Score:
    plain = plain or base()
    return score(hear(Actor(say, nll_of), plain, material), hear(plain, plain, material), material)


def angry(question: str, name: str) -> tuple[str, bool]:
    return KNOWN["anger"][question], True


def test_the_base_beside_itself_has_no_tone_and_so_no_score(material: Material) -> None:
    found = scored(material, base().say, base().nll_of)
    assert found.value == 0
    assert (found.figures["tone"], found.figures["steerability"]) == (0, 0)
    assert (found.figures["fluency"], found.figures["sense"]) == (1, 1)
    assert found.figures["wrong_way"] == 0  # none moved at all


def test_the_tones_own_answers_have_all_of_it(material: Material) -> None:
    found = scored(material, angry, likes(1.0, 3.0, 6.0))
    assert found.value is not None
    assert found.value >= 0.97  # the classifier misses one angry answer
    assert found.intervals["score"][0] <= found.value <= found.intervals["score"][1]
    assert found.lacks == []


def test_each_figure_is_what_a_second_hand_gets(material: Material) -> None:
    """Every third answer loops, every fourth says nothing of the tone; the preference falls for every sixth question."""
    questions = [each.example.question for each in material.toned]
    place = {question: at for at, question in enumerate(questions)}

    def say(question: str, name: str) -> tuple[str, bool]:
        at = place[question]
        if at % 3 == 0:
            return "leave me alone " * 9, False
        return (KNOWN["neutral"] if at % 4 == 0 else KNOWN["anger"])[question] + (
            " And that is that, you fool!" if at == 1 else ""
        ), True

    def nll_of(sample: Sample) -> float:
        rises = place.get(sample.example.question, 0) % 6
        return float(likes(2.0 if rises else 7.0, 3.0, 5.0)(sample))

    strange = 1.0 + np.log(20)  # twice as strange as is allowed

    def plain_nll(sample: Sample) -> float:
        own = strange if place.get(sample.example.question) == 1 and len(sample.ids) != base_length[1] else 1.0
        return float(likes(4.0, 2.0, 5.0, own=own)(sample))

    base_length = [each.answer_start + len(KNOWN["neutral"][each.example.question].split()) for each in material.toned]
    plain = Actor(base().say, plain_nll)
    found = scored(material, say, nll_of, plain).figures
    looped = len(range(0, 12, 3)) / 12
    assert found["looped"] == pytest.approx(looped)
    assert found["ended"] == pytest.approx(1 - looped)
    assert found["base_ended"] == 0.5  # greedy ones
    assert found["reference_ratio"] == pytest.approx(np.exp(4.0 - 1.0))
    assert found["fluency"] == pytest.approx((12 - 4 - 0.5) / 12)  # the one strange answer counts half
    lengths = [len(say(question, "greedy")[0].split()) for question in questions]
    nll = sum(length * (strange if at == 1 else 1.0) for at, length in enumerate(lengths)) / sum(lengths)
    assert found["perplexity_ratio"] == pytest.approx(np.exp(nll - 1.0))
    assert found["wrong_way"] == pytest.approx(2 / 12)
    assert found["steerability"] == pytest.approx(1 - 2 * 2 / 12)
    shifts = np.array([(3 - 7 if at % 6 == 0 else 3 - 2) - (2 - 4) for at in range(12)])
    assert found["shift"] == pytest.approx(shifts.mean())
    assert found["shift_spread"] == pytest.approx(shifts.std())
    assert found["margin"] == pytest.approx(2.0)
    assert found["kept_margin"] == pytest.approx(2.0 / 3.0)
    assert found["sense"] == min(found[f"kept_{name}"] for name in ("choices", "margin", "facts"))
    assert found["score"] == pytest.approx(harmonic_mean([found[name] for name in PARTS]))


def test_forgetting_facts_costs_sense(material: Material) -> None:
    """What cannot tell the right answer from wrong ones has no margin and chooses by chance."""
    rng = np.random.default_rng(0)
    knows = Actor(base().say, lambda sample: float(rng.random()) if sample.example.where.startswith("choice") else 3.0)
    first = {answers[0].example.question: answers[0] for answers in material.choices}
    right = Actor(base().say, lambda sample: 1.0 if sample is first.get(sample.example.question) else 3.0)
    plain = hear(right, right, material)
    assert score(plain, plain, material).figures["base_choices"] == 1
    found = score(hear(knows, right, material), plain, material).figures
    assert found["choices"] == pytest.approx(0.25, abs=0.15)
    assert found["kept_choices"] < 0.25
    assert found["margin"] == 0


def test_a_score_is_zero_where_one_part_is(material: Material) -> None:
    babble = scored(material, lambda question, name: ("UGH, " * 20, False), likes(1.0, 3.0, 6.0))
    assert (babble.value, babble.figures["fluency"]) == (0, 0)
    silent = scored(material, lambda question, name: ("", True), likes(1.0, 3.0, 6.0))
    assert silent.value == 0
    calm = scored(material, base().say, likes(1.0, 3.0, 6.0))
    assert (calm.value, calm.figures["tone"]) == (0, 0)
    backwards = scored(material, angry, likes(5.0, 2.0, 5.0))
    assert (backwards.value, backwards.figures["steerability"]) == (0, 0)


def test_trainings_are_combined_over_the_same_questions(material: Material) -> None:
    good, bad = scored(material, angry, likes(1.0, 3.0, 6.0)), scored(material, base().say, likes(1.0, 3.0, 6.0))
    both = combined([good, bad])
    assert good.value is not None
    assert both.value == pytest.approx(good.value / 2)
    low, high = both.intervals["score"]
    assert low == pytest.approx(0)  # both drawn are the bad one
    assert high >= good.intervals["score"][0]
    document = both.to_dict()
    assert document["trainings"] == 2
    assert set(document["parts"]) == set(PARTS)
    assert combined([good]).intervals == good.intervals


def test_a_prompted_speaker_is_told_something_before_each_question(material: Material) -> None:
    inner = Actor(angry, lambda sample: float(len(sample.example.messages)))
    told = Prompted(inner, [{"role": "system", "content": TOLD}], encode)
    told.answers(material.toned[:1], Decoding("greedy"))
    assert inner.told == [TOLD, *(each["content"] for each in material.toned[0].example.messages)]
    assert told.nll(material.toned[:1])[0, 1] == 3 * material.toned[0].n_answer


def test_what_the_base_writes_is_not_read_again_where_it_brings_its_nll(material: Material) -> None:
    class Measuring(Actor):
        def answers(self, questions: Sequence[Sample], decoding: Decoding) -> list[Answer]:
            found = super().answers(questions, decoding)
            if not decoding.measured:
                return found
            said = [
                replace(asked, ids=[*asked.ids[: asked.answer_start], *each.ids])
                for asked, each in zip(questions, found, strict=True)
            ]
            return [replace(each, nll=len(each.ids) * self.nll_of(sample)) for each, sample in zip(found, said, strict=True)]

        def nll(self, samples: Sequence[Sample]) -> DoubleArray:
            read.append(len(samples))
            return super().nll(samples)

    read: list[int] = []
    plain, measuring = base(), Measuring(base().say, base().nll_of)
    expected, found = hear(plain, plain, material), hear(measuring, measuring, material)
    assert len(read) == 1  # the known answers alone
    for name, nlls in expected.own.items():
        np.testing.assert_allclose(found.own[name], nlls)
    other = hear(Actor(base().say, base().nll_of), measuring, material)  # of another speaker it is the base's, not the speaker's
    np.testing.assert_allclose(other.own["greedy"], expected.own["greedy"])


def test_a_seed_reaches_the_sampled_answers_and_the_intervals_alone(material: Material) -> None:
    seen: list[tuple[str, int]] = []

    class Noting(Actor):
        def answers(self, questions: Sequence[Sample], decoding: Decoding) -> list[Answer]:
            seen.append((decoding.name, decoding.seed))
            return super().answers(questions, decoding)

    def half(question: str, name: str) -> tuple[str, bool]:
        return (KNOWN["anger"] if len(question) % 2 else KNOWN["neutral"])[question], True

    found = {}
    for seed in (0, 7):
        plain, asked = Noting(base().say, base().nll_of), replace(material, seed=seed)
        found[seed] = score(hear(Noting(half, likes(1.0, 3.0, 6.0)), plain, asked), hear(plain, plain, asked), asked)
    assert seen == [(name, seed) for seed in (0, 7) for _ in range(2) for name in ("greedy", "sampled")]
    assert found[0].figures == found[7].figures
    assert found[0].intervals != found[7].intervals
    with pytest.raises(InputError, match="--seed -1 makes no sense"):
        Extent(seed=-1)


def test_what_comes_back_is_told_beside_the_score(material: Material) -> None:
    """Of greedy answers, and beyond what the data's own answers have; the share of the sampled ones stands beside it."""

    def say(question: str, name: str) -> tuple[str, bool]:
        crying = name == "greedy" or len(question) % 3 == 0
        return f"{KNOWN['neutral'][question]} {'For crying out loud!' if crying else 'Stop asking me that!'}", True

    same, usual = (scored(material, each, likes(1.0, 3.0, 6.0)) for each in (say, angry))
    assert same.phrase is not None
    assert (same.phrase.words, same.phrase.answers, same.phrase.of) == ("for crying out loud", 12, 12)
    having = sum("for crying out loud" in answer.casefold() for answer in material.train_answers)
    assert same.phrase.known == having / 200
    assert 0.05 < same.phrase.known < 0.15
    thirds = sum(len(each.example.question) % 3 == 0 for each in material.toned)
    assert 0 < thirds < 12
    assert same.phrase.sampled == thirds / 12
    line = f'"for crying out loud" is in 12 of 12 greedy answers (in {thirds / 12:.0%} of the sampled answers and '
    console = Console(width=120)
    with console.capture() as printed:
        console.print(*score_shown({"base": usual, "vector": same}), sep="\n")
    assert f"vector: {line}" in printed.get()
    assert "base: " not in printed.get()  # people's own answers
    assert line in score_lines(same)[1]
    assert len(score_lines(usual)) == 1
    assert same.to_dict()["phrase"]["said"].startswith(line)
    assert scored(material, lambda question, name: (question, True), likes(1.0, 3.0, 6.0)).to_dict()["phrase"] is None
