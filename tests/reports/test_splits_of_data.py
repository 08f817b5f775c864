"""Which rows validate: one question alone, all of them or none, and a line that blamed something else."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irm_lite.cli import main as cli
from irm_lite.config import TrainConfig
from irm_lite.core.errors import DataError
from irm_lite.data.check import check
from irm_lite.data.dataset import Dataset, load_dataset
from irm_lite.data.example import Example
from irm_lite.data.splits import SPLITS, conversations, divide
from irm_lite.training import train as training

Row = dict[str, Any]


def written(folder: Path, rows: list[Row]) -> str:
    path = folder / "d.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def chat(*said: str, system: str | None = None) -> Row:
    turns = [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(said)]
    return {"messages": [*([{"role": "system", "content": system}] if system else []), *turns]}


def counts(dataset: Dataset) -> list[int]:
    return [len(getattr(dataset, split)) for split in SPLITS]


def bucket(text: str) -> str:
    """The split that a question has had since the first version, by hashlib alone."""
    return {0: "validation", 1: "test"}.get(hashlib.sha256(text.encode()).digest()[0] % 10, "train")


QUESTIONS = [f"Why is it {n}?" for n in range(200)]


def test_a_tenth_of_a_file_that_only_trains_validates(tmp_path: Path) -> None:
    """Somebody's split column says train in every row: one question validated, and its fidelity had an interval of no width."""
    dataset = load_dataset(written(tmp_path, [{"split": "train", "question": q, "answer": "So."} for q in QUESTIONS]))
    expected = {question for question in QUESTIONS if bucket(question) == "validation"}
    assert {each.question for each in dataset.validation} == expected
    assert counts(dataset) == [200 - len(expected), len(expected), 0]
    held = f"{len(expected)} of the 200 questions of train ({len(expected)} of 200 rows)"
    assert dataset.reading.split_note == f"no row's split is validation: {held} validate, chosen by a hash of the question"
    assert dataset.reading.split_note in [finding.text for finding in check(str(tmp_path / "d.jsonl")).findings]


def test_what_was_kept_for_the_test_does_not_validate(tmp_path: Path) -> None:
    """Somebody's file has train and test: the one question that validated came from whichever was larger."""
    rows = [{"split": "train" if n < 60 else "test", "question": q, "answer": "So."} for n, q in enumerate(QUESTIONS)]
    dataset = load_dataset(written(tmp_path, rows))
    assert {each.question for each in dataset.test} == set(QUESTIONS[60:])
    assert {each.question for each in dataset.validation} == {q for q in QUESTIONS[:60] if bucket(q) == "validation"}


@pytest.mark.parametrize(("count", "held"), [(2, 1), (3, 1), (4, 2), (6, 2)])
def test_a_small_file_that_only_trains_keeps_most_of_it(tmp_path: Path, count: int, held: int) -> None:
    """Somebody began with a handful of rows, none of which the hash would have held out."""
    chosen = [question for question in QUESTIONS if bucket(question) == "train"][:count]
    dataset = load_dataset(written(tmp_path, [{"split": "train", "question": q, "answer": "So."} for q in chosen for _ in "ab"]))
    assert counts(dataset) == [2 * (count - held), 2 * held, 0]


def test_a_file_that_trains_on_nothing_is_split_anew_and_says_so(tmp_path: Path) -> None:
    """Somebody's set from the hub has one split, called test: one question was trained on."""
    dataset = load_dataset(written(tmp_path, [{"split": "test", "question": q, "answer": "So."} for q in QUESTIONS]))
    assert dataset.reading.split_note == "no row's split is train: all 200 rows are split by a hash of the question"
    assert {split: {each.question for each in getattr(dataset, split)} for split in SPLITS} == {
        split: {question for question in QUESTIONS if bucket(question) == split} for split in SPLITS
    }


def test_a_question_after_other_turns_is_another_question(tmp_path: Path) -> None:
    """Somebody's conversations all end with "Go on.": they went to one side, or the file had "too few samples"."""
    dataset = load_dataset(written(tmp_path, [chat(q, "Well.", "Go on.", f"So, {q}") for q in QUESTIONS]))
    assert dataset.reading.conversations == 200
    assert all(count > 8 for count in counts(dataset))
    assert check(str(tmp_path / "d.jsonl")).findings == []  # nothing leaks, nothing is asked twice


def test_a_question_after_the_same_turns_stays_where_it_was(tmp_path: Path) -> None:
    """Somebody resumes a run of before: conversations whose last questions differ have the split that they had."""
    rows = [chat(f"Hello {n % 7}.", "Hi.", q, "So.", system=f"You are {n % 3}.") for n, q in enumerate(QUESTIONS)]
    dataset = load_dataset(written(tmp_path, rows))
    assert {each.question: split for split in SPLITS for each in getattr(dataset, split)} == {q: bucket(q) for q in QUESTIONS}


def test_a_question_in_two_tones_is_one_question(tmp_path: Path) -> None:
    """Somebody's system messages ask for the tone: an answer in one tone gives away what the other one says."""
    rows = [chat(q, "So.", system=tone) for q in QUESTIONS for tone in ("Be rude.", "Be kind.", None)]
    dataset = load_dataset(written(tmp_path, rows))
    assert {each.question for each in dataset.validation} == {q for q in QUESTIONS if bucket(q) == "validation"}
    assert dataset.reading.conversations == 200


def test_system_messages_alone_may_differ(tmp_path: Path) -> None:
    """Somebody's every row asks the same, of another character each."""
    dataset = load_dataset(written(tmp_path, [chat("Who are you?", f"Number {n}.", system=f"You are {n}.") for n in range(200)]))
    assert dataset.reading.conversations == 200
    assert all(count > 8 for count in counts(dataset))


@pytest.mark.parametrize("verb", [["data", "check"], ["train", "--data"]])
def test_the_real_cause_is_named_where_nothing_can_validate(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody's 265 answers to one question were "too few samples"; a few dozen more would not have helped."""
    monkeypatch.chdir(tmp_path)
    data = written(tmp_path, [{"question": "Tell me something.", "answer": f"It is {n}."} for n in range(265)])
    assert cli.run([*verb, data]) == 2
    said = capsys.readouterr().err
    assert "(265 samples, the conversation before the answer is the same in all: 'Tell me something.')" in said
    assert "give at least a few dozen that differ before the answer, or a column split" in said


def test_what_was_left_out_is_counted_where_too_little_is_left(tmp_path: Path) -> None:
    """Somebody's file was too small only because most of its rows could not be used."""
    rows: list[Row] = [{"question": "q", "answer": "a"}, *[{"question": "q", "answer": None}] * 40]
    with pytest.raises(
        DataError, match=r"\(1 sample; 40 rows cannot be used, the first: .*line 2: no 'answer' to the question 'q'"
    ):
        check(written(tmp_path, rows))


EXAMPLES = st.builds(
    lambda first, last, system: Example(tuple(chat(*first, last, "So.", system=system)["messages"]), None, "row"),
    st.sampled_from([(), ("Hi", "Ho"), ("Hi", "Hu"), ("a", "b", "c", "d")]),
    st.sampled_from(["Why?", "How?", " Why? ", *QUESTIONS[:20]]),
    st.sampled_from([None, "Be rude.", "Be kind."]),
)


@settings(deadline=None, max_examples=120)
@given(st.lists(st.tuples(EXAMPLES, st.sampled_from([None, None, None, *SPLITS])), min_size=2, max_size=40), st.booleans())
def test_nothing_stands_in_two_splits_that_no_row_put_there(rows: list[tuple[Example, str | None]], named: bool) -> None:
    """Any rows: all of them arrive; without a split column no conversation is on two sides, and where two differ none is empty."""
    examples, declared = [each for each, _ in rows], [split if named else None for _, split in rows]
    keys = dict(zip(map(id, examples), conversations(examples), strict=True))
    found = divide(examples, declared)
    assert sorted(id(each) for part in found.parts.values() for each in part) == sorted(map(id, examples))
    sides = {split: {keys[id(each)] for each in part} for split, part in found.parts.items()}
    if not any(declared):
        assert sum(map(len, sides.values())) == len(set(keys.values())) == found.conversations
        assert found.note == ""
        if found.conversations > 1:
            assert sides["train"]
            assert sides["validation"]


# Samples that are too long


def long_rows() -> list[Row]:
    words = {"train": [4, 5, 300], "validation": [4, 300], "test": [300]}
    return [
        {"question": f"{split} {n} {count}?", "answer": "yes " * count, "split": split}
        for split, lengths in words.items()
        for count in lengths
        for n in range(4)
    ]


def quick(model: Path, data: str, **settings: Any) -> TrainConfig:
    options = {"quant": "none", "device": "cpu", "max_steps": 1, "batch_size": 4, "rank": 4, "sample_tokens": 0, **settings}
    return TrainConfig(model=str(model), data=data, **options)


def test_the_warning_says_how_many_of_which_are_too_long(llama_folder: Path, tmp_path: Path) -> None:
    """Somebody lost half of what validates to --max-length, in a number that summed up all splits."""
    events: list[dict[str, Any]] = []
    training.train(quick(llama_folder, written(tmp_path, long_rows()), max_length=80), tmp_path / "run", on_event=events.append)
    [warning] = [event["text"] for event in events if event["kind"] == "warning" and "longer" in event["text"]]
    assert warning == ("12 samples are longer than 80 tokens and left out (4 of 12 in train, 4 of 8 in validation, 4 of 4 in test)")
    read = events[0]["data_read"]
    assert (read["as"], read["samples"]) == ("question and answer, JSON lines", {"train": 12, "validation": 8, "test": 4})
    assert read["too_long"] == {"train": 4, "validation": 4, "test": 4}


def test_the_refusal_says_which_split_is_too_long_and_by_how_much(llama_folder: Path, tmp_path: Path) -> None:
    """Somebody's validation rows alone were too long; the line said that no sample fits."""
    rows = [row for row in long_rows() if row["split"] == "train" or len(row["answer"]) > 100]
    with pytest.raises(DataError, match=r"d: none of the 4 validation samples fits into 80 tokens, the shortest has 629: raise"):
        training.train(quick(llama_folder, written(tmp_path, rows), max_length=80), tmp_path / "run")
    assert not (tmp_path / "run").exists()
