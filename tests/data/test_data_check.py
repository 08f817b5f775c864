"""The check finds what was planted, and nothing where nothing was."""

import json
import random
import string
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from irm_lite.cli import main as cli
from irm_lite.core.errors import DataError
from irm_lite.data.check import Leak, Report, check
from irm_lite.data.dataset import load_dataset
from irm_lite.data.text_measures import distinct_2, normalised

Row = dict[str, Any]


def rows(count: int, split: str, seed: int) -> list[Row]:
    """Questions and answers of random words: none equals another."""
    draw = random.Random(seed)

    def text(words: int) -> str:
        return " ".join("".join(draw.choices(string.ascii_lowercase, k=6)) for _ in range(words))

    return [{"question": text(5) + "?", "answer": text(8) + ".", "split": split} for _ in range(count)]


CLEAN = rows(40, "train", 1) + rows(8, "validation", 2) + rows(8, "test", 3)


def looked_at(tmp_path: Path, data: Iterable[Row]) -> Report:
    path = tmp_path / "d.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in data), encoding="utf-8")
    return check(str(path))


def pointless(report: Report) -> list[str]:
    return [finding.text for finding in report.findings if finding.pointless]


def test_of_clean_data_nothing_is_said(tmp_path: Path) -> None:
    report = looked_at(tmp_path, CLEAN)
    assert report.findings == []
    assert {name: part.samples for name, part in report.parts.items()} == {"train": 40, "validation": 8, "test": 8}
    assert [(leak.same, leak.normalised) for leak in report.leaks] == [(0, 0)] * 3
    train = report.parts["train"]
    assert (train.question_words, train.answer_words, train.distinct_2) == ((5, 5, 5), (8, 8, 8), 1.0)
    assert (report.shared_answers, report.refused, report.unanswered) == (0, [], 0)


def test_repeats_copies_and_wordless_answers_are_counted(tmp_path: Path) -> None:
    first, second, third = CLEAN[:3]
    planted = [
        {**first, "question": "  " + first["question"].upper().replace("?", " !")},  # question and answer stand there already
        {**second, "question": "Another one?"},  # the answer does
        {"question": "Who, me?", "answer": "who me", "split": "train"},
        {"question": "What now?", "answer": "?! ...", "split": "train"},
        {**third, "question": "Over there?", "split": "test"},
    ]
    report = looked_at(tmp_path, CLEAN + planted)
    train = report.parts["train"]
    assert (train.repeated_questions, train.repeated_answers, train.copied, train.wordless) == (1, 2, 1, 1)
    assert report.parts["test"].repeated_answers == 0
    assert report.shared_answers == 4  # second's and third's, each in two places
    assert pointless(report) == []
    said = " ".join(finding.text for finding in report.findings)
    assert "line 59" in said  # the copy
    assert "line 60" in said  # the wordless one


@pytest.mark.parametrize(("leaked", "spoilt"), [(1, False), (8, True)])
def test_leaks_are_found_letter_by_letter_and_in_the_normal_form(tmp_path: Path, leaked: int, spoilt: bool) -> None:
    held_out = [{**row, "split": "validation", "answer": f"other {n}"} for n, row in enumerate(CLEAN[:leaked])]
    held_out[0]["question"] = held_out[0]["question"].title() + "!"
    report = looked_at(tmp_path, CLEAN + held_out)
    assert report.leaks[0] == Leak(("train", "validation"), leaked - 1, leaked)
    assert [leak.normalised for leak in report.leaks[1:]] == [0, 0]
    [finding] = report.findings
    assert finding.pointless is spoilt
    assert f"{leaked} of {8 + leaked} questions of validation" in finding.text


@pytest.mark.parametrize(
    ("change", "fragment"),
    [
        (lambda row: {"answer": "Always the same."}, "all answers of train are the same"),
        (lambda row: {"answer": row["question"]}, "repeat their question"),
        (lambda row: {"answer": "..."}, "contain no word"),
    ],
)
def test_what_teaches_nothing_is_called_pointless(tmp_path: Path, change: Any, fragment: str) -> None:
    report = looked_at(tmp_path, [{**row, **change(row)} if row["split"] == "train" else row for row in CLEAN])
    assert any(fragment in text for text in pointless(report))
    assert report.findings[0].pointless  # these come first
    untouched = looked_at(tmp_path, [{**row, **change(row)} if row["split"] == "test" else row for row in CLEAN])
    assert pointless(untouched) == []


def test_rows_that_training_refuses_are_counted_with_the_first_ones_words(tmp_path: Path) -> None:
    bad = [{"question": "Why?"}, {"question": "How?", "answer": "a", "split": "dev"}]
    report = looked_at(tmp_path, CLEAN + bad)
    assert len(report.refused) == 2
    assert [text for text in pointless(report) if "line 57: no 'answer'" in text]
    assert report.parts["train"].samples == 40
    with pytest.raises(DataError, match="line 1: no 'answer' to the question 'Why"):
        looked_at(tmp_path, [{"question": "Why?"}] * 3)


def test_a_few_samples_without_a_test_split_are_remarked(tmp_path: Path) -> None:
    report = looked_at(tmp_path, rows(5, "train", 1) + rows(5, "validation", 2))
    assert [finding.text for finding in report.findings] == ["only 5 samples to train on", "there is no test split"]


@pytest.mark.parametrize(("tone", "variety"), [("neutral", 0.85), ("anger", 0.61), ("sadness", 0.62), ("joy", 0.64)])
def test_the_shipped_data_is_as_its_page_says(tone: str, variety: float) -> None:
    """docs/data.md gives distinct-2 over all of a tone's answers, by another program."""
    report = check(tone)
    assert report.findings == []
    assert {name: part.samples for name, part in report.parts.items()} == {"train": 200, "validation": 20, "test": 45}
    data = load_dataset(tone)
    answers = [normalised(each.answer) for each in data.train + data.validation + data.test]
    assert distinct_2(*answers) == pytest.approx(variety, abs=0.007)  # that one kept apostrophes


def test_plain_texts_have_no_questions_to_repeat(tmp_path: Path) -> None:
    path = tmp_path / "t.txt"
    path.write_text("\n\n".join(f"Paragraph {n} of some words." for n in range(40)), encoding="utf-8")
    report = check(str(path))
    assert max(report.parts["train"].question_words) == 0
    assert sum(part.repeated_questions + part.copied for part in report.parts.values()) == 0


@given(st.text(max_size=30))
def test_the_normal_form_forgets_case_spaces_and_punctuation(text: str) -> None:
    once = normalised(text)
    assert normalised(once) == once
    assert normalised(f"  {text}\t!?") == once
    assert "  " not in once
    assert not set(once) & set(string.punctuation) - set("$+<=>^`|~")  # symbols, to Unicode


def test_distinct_2_over_several_texts_joins_no_pair_across_them() -> None:
    assert distinct_2("a b", "b a", "a b") == pytest.approx(2 / 3)
    assert distinct_2("one", "") == 0


def test_the_verb_prints_a_table_and_gives_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "same.jsonl"
    path.write_text("".join(json.dumps({**row, "answer": "No\x1b[31m."}) + "\n" for row in CLEAN), encoding="utf-8")
    assert cli.run(["data", "check", str(path)]) == 0
    shown = capsys.readouterr().out
    assert "training on this is pointless: all answers of train are the same" in shown
    assert "\x1b" not in shown
    assert cli.run(["data", "check", str(path), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["parts"]["train"]["repeated_answers"] == 39
    assert document["leaks"][0] == {"splits": ["train", "validation"], "same": 0, "normalised": 0}
    assert cli.run(["data", "check", str(tmp_path / "absent.jsonl")]) == 2


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_what_training_would_refuse_ends_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str]) -> None:
    path = tmp_path / "holes.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in [*CLEAN, {"question": "Why?", "answer": 3}]), encoding="utf-8")
    assert cli.run(["data", "check", str(path), *flags]) == 2
    said = capsys.readouterr()
    assert "training refuses the file" in said.out
    assert said.err.splitlines() == [f"irm-lite: training would refuse {path}: fix the rows that are named above"]
    with pytest.raises(DataError):
        load_dataset(str(path))
