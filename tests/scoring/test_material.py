"""What a score is taken on, and what is said where data lack something."""

import json
from pathlib import Path
from typing import Any

import pytest

from irm_lite.core.errors import InputError
from irm_lite.data.dataset import Example, load_dataset
from irm_lite.data.encoding import Sample
from irm_lite.scoring.material import DISTRACTORS, OWN, Extent, Material, gather, question_kind


def encode(example: Example) -> Sample:
    return Sample([1] * (1 + len(example.answer.split())), 1, example)


def of(spec: str, answer_column: str = "answer", **extent: Any) -> Material:
    dataset = load_dataset(spec, answer_column)
    held_out = [encode(each) for each in dataset.test or dataset.validation]
    return gather(spec, dataset, held_out, encode, answer_column=answer_column, extent=Extent(**extent))


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return str(path)


def rows(count: int, **columns: str) -> list[dict[str, Any]]:
    """The shipped questions, their angry answers as `answer`."""
    shipped, plain = load_dataset("anger"), load_dataset("neutral")
    found = []
    for at, (angry, neutral) in enumerate(zip(shipped.train[:count], plain.train[:count], strict=True)):
        split = ("train", "train", "train", "validation", "test")[at % 5]
        found.append({"question": angry.question, "answer": angry.answer, "neutral": neutral.answer, "split": split, **columns})
    return found


def test_a_shipped_tone_has_all_of_it() -> None:
    material = of("anger", questions=None)
    assert material.lacks == []
    assert len(material.toned) == len(material.neutral) == len(material.distractors) == 45
    assert (len(material.choices), material.tone, material.new_tokens) == (132, "anger", 64)
    for toned, neutral, wrong in zip(material.toned, material.neutral, material.distractors, strict=True):
        assert toned.example.question == neutral.example.question
        assert len(wrong) == DISTRACTORS
        assert len({neutral.example.answer, *(each.example.answer for each in wrong)}) == 1 + DISTRACTORS
        assert {each.example.question for each in wrong} == {toned.example.question}


def test_distractors_answer_questions_of_the_same_kind() -> None:
    answers = {
        each.answer: each.question for split in ("train", "validation", "test") for each in getattr(load_dataset("neutral"), split)
    }
    same = [
        question_kind(answers[each.example.answer]) == question_kind(each.example.question)
        for wrong in of("joy", questions=None).distractors
        for each in wrong
    ]
    assert all(same)


def test_how_many_questions_says_how_much_of_everything() -> None:
    material = of("anger", questions=3)
    assert (len(material.toned), len(material.choices)) == (3, 12)
    assert of("anger", questions=3, new_tokens=9).new_tokens == 9
    for wrong in ({"questions": -1}, {"new_tokens": 0}, {"new_tokens": 10**6}):
        with pytest.raises(InputError, match="make no sense"):
            Extent(**wrong)


def test_a_file_with_neutral_answers_has_a_classifier_of_its_own(tmp_path: Path) -> None:
    material = of(write(tmp_path / "mine.jsonl", rows(100)))
    assert material.lacks == []
    assert material.tone == OWN
    assert material.classifier is not None
    assert material.classifier.tones([load_dataset("anger").test[5].answer, load_dataset("neutral").test[5].answer]) == [
        OWN,
        "neutral",
    ]


def test_too_few_rows_for_a_classifier_are_said(tmp_path: Path) -> None:
    material = of(write(tmp_path / "ten.jsonl", rows(10)))
    assert material.classifier is None
    assert len(material.neutral) == 2
    assert material.lacks == [
        "6 training answers with a neutral one beside them are too few for a classifier (it takes 40): tone by preference alone"
    ]


def test_no_neutral_answers_are_said(tmp_path: Path) -> None:
    bare = [{key: value for key, value in row.items() if key != "neutral"} for row in rows(20)]
    talks = [
        {
            "messages": [{"role": "user", "content": row["question"]}, {"role": "assistant", "content": row["answer"]}],
            "split": row["split"],
        }
        for row in bare
    ]
    for name, data in {"bare": bare, "talks": talks}.items():
        material = of(write(tmp_path / f"{name}.jsonl", data))
        assert len(material.lacks) == 1
        assert "no neutral answers" in material.lacks[0]
        assert (len(material.toned), material.neutral, material.classifier) == (4, [], None)
        assert material.choices
    assert of("neutral").lacks == ["neutral is no tone: no tone and no steerability, so no score"]


def test_texts_without_questions_are_said(tmp_path: Path) -> None:
    data = [{"text": row["answer"], "split": row["split"]} for row in rows(20)]
    material = of(write(tmp_path / "texts.jsonl", data))
    assert material.lacks == ["the data ask no questions: nothing is answered in text"]
    assert (material.toned, material.choices) == ([], [])


def test_long_answers_have_room() -> None:
    dataset = load_dataset("anger")
    long = [Sample([1] * 101, 1, each) for each in dataset.test]
    assert gather("anger", dataset, long, encode).new_tokens == 150
    longest = [Sample([1] * 1001, 1, each) for each in dataset.test]
    assert gather("anger", dataset, longest, encode).new_tokens == 256
