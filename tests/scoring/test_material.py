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
    wrong: dict[str, int]
    for wrong in ({"questions": -1}, {"new_tokens": 0}, {"new_tokens": 10**6}):
        with pytest.raises(InputError, match="make no sense"):
            Extent(questions=wrong.get("questions"), new_tokens=wrong.get("new_tokens"))


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
        "6 training answers with a neutral one beside them are too few for a classifier (it takes 40): tone by preference alone",
        "an interval that means much: 2 held-out questions are few",
    ]


def test_a_classifier_that_tells_nothing_apart_is_not_asked(tmp_path: Path) -> None:
    """Both columns hold answers of both sorts."""
    mixed = [{**row, "answer": row["neutral"], "neutral": row["answer"]} if at % 2 else row for at, row in enumerate(rows(150))]
    material = of(write(tmp_path / "mixed.jsonl", mixed))
    assert material.classifier is None
    (line,) = material.lacks
    assert line.endswith("% of the training answers wrongly: tone by preference alone")


def test_questions_without_a_neutral_answer_are_counted(tmp_path: Path) -> None:
    some = [{**row, "neutral": "" if row["split"] == "test" and at >= 30 else row["neutral"]} for at, row in enumerate(rows(100))]
    material = of(write(tmp_path / "some.jsonl", some))
    assert len(material.toned) == len(material.neutral) == 6
    assert material.lacks == ["14 of 20 held-out questions, which have no neutral answer"]


def test_key_words_are_of_english_alone(tmp_path: Path) -> None:
    said = "Das ist der Baum Nummer {}, und das weißt du doch ganz genau, also lass mich in Ruhe!"
    german = [
        {**row, "question": f"Welcher Baum ist das dort drüben, Nummer {at}?", "answer": said.format(at), "neutral": f"Baum {at}."}
        for at, row in enumerate(rows(50))
    ]
    material = of(write(tmp_path / "german.jsonl", german))
    assert not material.in_english
    assert any(line.startswith("key words: ") for line in material.lacks)
    assert of("anger").in_english


def test_strengths_are_chosen_by_other_choices_than_count() -> None:
    asked = [
        {each[0].example.question for each in of("anger", questions=16, choosing=choosing).choices} for choosing in (False, True)
    ]
    assert len(asked[0]) == len(asked[1]) == 64
    assert not asked[0] & asked[1]
    assert len(of("anger", questions=None, choosing=True).choices) == 132


def test_no_neutral_answers_are_said(tmp_path: Path) -> None:
    bare = [{key: value for key, value in row.items() if key != "neutral"} for row in rows(40)]
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
        assert (len(material.toned), material.neutral, material.classifier) == (8, [], None)
        assert material.choices
    assert of("neutral").lacks == ["neutral is no tone: no tone and no steerability, so no score"]


def test_texts_without_questions_are_said(tmp_path: Path) -> None:
    data = [{"text": row["answer"], "split": row["split"]} for row in rows(40)]
    material = of(write(tmp_path / "texts.jsonl", data))
    assert material.lacks == ["the data ask no questions: nothing is answered in text"]
    assert (material.toned, material.choices) == ([], [])


def test_long_answers_have_room() -> None:
    dataset = load_dataset("anger")
    long = [Sample([1] * 101, 1, each) for each in dataset.test]
    assert gather("anger", dataset, long, encode).new_tokens == 150
    longest = [Sample([1] * 1001, 1, each) for each in dataset.test]
    assert gather("anger", dataset, longest, encode).new_tokens == 256
