"""The shipped data's rules, and users' files in every format, read and split and refused."""

import csv
import hashlib
import json
import os
import random
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irm_lite.core.errors import DataError, MissingPart
from irm_lite.data.dataset import Dataset, Example, load_dataset, tones
from irm_lite.data.splits import SPLITS

TONES = ("anger", "joy", "neutral", "sadness")
Row = dict[str, Any]

quick = settings(deadline=None, max_examples=40)


# The shipped data


@pytest.fixture(scope="module")
def shipped() -> list[Row]:
    text = (resources.files("irm_lite.data.shipped") / "everyday.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9']+", text.lower())


def test_the_four_tones_are_there(shipped: list[Row]) -> None:
    assert tones() == TONES
    assert all(set(row) == {"id", "split", "question", *TONES} for row in shipped)


def test_there_are_enough_questions_with_200_for_training_and_20_for_validation(shipped: list[Row]) -> None:
    assert len(shipped) >= 240
    counts = Counter(row["split"] for row in shipped)
    assert counts == {"train": 200, "validation": 20, "test": len(shipped) - 220}


def test_no_question_or_number_stands_there_twice(shipped: list[Row]) -> None:
    assert max(Counter(" ".join(words(row["question"])) for row in shipped).values()) == 1
    assert [row["id"] for row in shipped] == list(range(len(shipped)))


@pytest.mark.parametrize("field", ["question", *TONES])
def test_every_text_is_ascii_and_not_empty(shipped: list[Row], field: str) -> None:
    assert [
        row["id"] for row in shipped if not row[field].strip() or not row[field].isascii() or row[field] != row[field].strip()
    ] == []


@pytest.mark.parametrize("tone", TONES)
def test_answers_are_one_or_two_sentences_and_at_most_a_short_exclamation(shipped: list[Row], tone: str) -> None:
    """A sentence ends with . ! or ? before a capital; of three sentences one must be of six words or fewer."""
    offenders = {}
    for row in shipped:
        lengths = [len(sentence.split()) for sentence in re.split(r"(?<=[.!?])\s+(?=[A-Z0-9\"'])", row[tone])]
        if len(lengths) > 3 or (len(lengths) == 3 and min(lengths) > 6):
            offenders[row["id"]] = row[tone]
    assert offenders == {}


@pytest.mark.parametrize("tone", TONES)
def test_no_opening_of_four_words_is_shared_by_more_than_two_percent(shipped: list[Row], tone: str) -> None:
    opening, times = Counter(tuple(words(row[tone])[:4]) for row in shipped).most_common(1)[0]
    assert times <= 0.02 * len(shipped), opening


@pytest.mark.parametrize("tone", TONES)
def test_at_least_sixty_percent_of_the_word_pairs_are_distinct(shipped: list[Row], tone: str) -> None:
    pairs = [pair for row in shipped for pair in pairwise(words(row[tone]))]
    assert len(set(pairs)) / len(pairs) >= 0.6


@pytest.mark.parametrize("tone", TONES)
def test_a_tone_loads_with_the_splits_that_its_file_fixes(shipped: list[Row], tone: str) -> None:
    dataset = load_dataset(tone)
    assert dataset.name == tone
    for split in SPLITS:
        expected = [(row["question"], row[tone]) for row in shipped if row["split"] == split]
        assert [(example.question, example.answer) for example in getattr(dataset, split)] == expected


# Users' files

PAIRS = [(f"What is {n} times {n}?", f"It is {n * n}, \u201cof course\u201d, na\u00efve one!") for n in range(60)]
ROWS: list[Row] = [{"question": question, "answer": answer} for question, answer in PAIRS]


def write_jsonl(path: Path, rows: list[Row]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_json(path: Path, rows: list[Row]) -> Path:
    path.write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    return path


def write_csv(path: Path, rows: list[Row]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(
            {key: value if isinstance(value, str) else json.dumps(value) for key, value in row.items()} for row in rows
        )
    return path


def write_parquet(path: Path, rows: list[Row]) -> Path:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


WRITERS: dict[str, Callable[[Path, list[Row]], Path]] = {
    "jsonl": write_jsonl,
    "json": write_json,
    "csv": write_csv,
    "parquet": write_parquet,
}
each_format = pytest.mark.parametrize("kind", list(WRITERS))


def examples(dataset: Dataset) -> list[Example]:
    return [*dataset.train, *dataset.validation, *dataset.test]


def sides(dataset: Dataset) -> dict[str, str]:
    """Question -> split."""
    return {example.question: split for split in SPLITS for example in getattr(dataset, split)}


@each_format
def test_questions_and_answers_are_read_as_they_were_written(tmp_path: Path, kind: str) -> None:
    dataset = load_dataset(str(WRITERS[kind](tmp_path / f"mine.{kind}", ROWS)))
    assert dataset.name == "mine"
    assert sorted((example.question, example.answer) for example in examples(dataset)) == sorted(PAIRS)
    first = next(example for example in examples(dataset) if example.question == PAIRS[0][0])
    assert first.messages == ({"role": "user", "content": PAIRS[0][0]}, {"role": "assistant", "content": PAIRS[0][1]})
    assert first.text is None


@each_format
def test_conversations_are_read_with_their_roles(tmp_path: Path, kind: str) -> None:
    conversations = [
        [
            {"role": "system", "content": "Be short."},
            {"role": "user", "content": "Hello, you!"},
            {"role": "assistant", "content": "Hi."},
            {"role": "user", "content": f"And now {number}?"},
            {"role": "assistant", "content": "Bye,\nbye."},
        ]
        for number in range(5)
    ]
    path = WRITERS[kind](tmp_path / f"chats.{kind}", [{"messages": each} for each in conversations])
    found = examples(load_dataset(str(path)))
    assert sorted((list(example.messages) for example in found), key=str) == conversations
    assert sorted((example.question, example.answer, example.text) for example in found) == [
        (f"And now {number}?", "Bye,\nbye.", None) for number in range(5)
    ]


@each_format
def test_plain_texts_are_read(tmp_path: Path, kind: str) -> None:
    texts = [f"Text {n},\nwith a second line." for n in range(30)]
    dataset = load_dataset(str(WRITERS[kind](tmp_path / f"texts.{kind}", [{"text": text} for text in texts])))
    assert sorted(example.text or "" for example in examples(dataset)) == sorted(texts)
    assert {example.messages for example in examples(dataset)} == {()}


def test_paragraphs_of_a_text_file_are_samples(tmp_path: Path) -> None:
    (tmp_path / "book.txt").write_bytes(b"\xef\xbb\xbfOne,\nstill one.\n\n\n\n  Two.  \r\n\r\nThree.\n\nFour.\n")
    dataset = load_dataset(str(tmp_path / "book.txt"))
    assert sorted(example.text or "" for example in examples(dataset)) == ["Four.", "One,\nstill one.", "Three.", "Two."]


@each_format
def test_another_column_can_hold_the_answers(tmp_path: Path, kind: str) -> None:
    rows = [{"question": question, "calm": "no", "angry": answer} for question, answer in PAIRS]
    dataset = load_dataset(str(WRITERS[kind](tmp_path / f"mine.{kind}", rows)), answer_column="angry")
    assert sorted((example.question, example.answer) for example in examples(dataset)) == sorted(PAIRS)


@each_format
def test_a_split_column_decides(tmp_path: Path, kind: str) -> None:
    rows = [{**row, "split": SPLITS[n % 3]} for n, row in enumerate(ROWS)]
    dataset = load_dataset(str(WRITERS[kind](tmp_path / f"mine.{kind}", rows)))
    assert sides(dataset) == {row["question"]: row["split"] for row in rows}


def test_an_empty_split_is_as_none_at_all(tmp_path: Path) -> None:
    with_column = load_dataset(str(write_csv(tmp_path / "a.csv", [{**row, "split": ""} for row in ROWS])))
    assert sides(with_column) == sides(load_dataset(str(write_csv(tmp_path / "b.csv", ROWS))))


def test_a_byte_order_mark_and_windows_line_ends_are_no_part_of_the_data(tmp_path: Path) -> None:
    lines = "\r\n".join(json.dumps(row) for row in ROWS)
    (tmp_path / "a.jsonl").write_bytes(b"\xef\xbb\xbf" + lines.encode() + b"\r\n\r\n")
    table = "question,answer\r\n" + "".join(f'"{row["question"]}","{n}"\r\n' for n, row in enumerate(ROWS))
    (tmp_path / "a.CSV").write_bytes(b"\xef\xbb\xbf" + table.encode())
    assert len(examples(load_dataset(str(tmp_path / "a.jsonl")))) == len(ROWS)
    assert {example.answer for example in examples(load_dataset(str(tmp_path / "a.CSV")))} == {str(n) for n in range(len(ROWS))}


def test_a_line_separator_inside_a_text_does_not_end_a_row(tmp_path: Path) -> None:
    rows = [{"question": f"q{n}", "answer": "a\u2028b\x85c"} for n in range(30)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    assert {example.answer for example in examples(load_dataset(str(tmp_path / "a.jsonl")))} == {"a\u2028b\x85c"}


# The split


@pytest.mark.slow
@quick
@given(st.randoms(use_true_random=False), st.integers(100, 200))
def test_the_split_does_not_depend_on_the_answers_or_the_order(
    tmp_path_factory: pytest.TempPathFactory, chance: random.Random, count: int
) -> None:
    folder = tmp_path_factory.getbasetemp()
    rows = [{"question": f"question {n}", "answer": "a"} for n in range(count)]
    first = sides(load_dataset(str(write_jsonl(folder / "split.jsonl", rows))))
    shuffled = [{"question": row["question"], "answer": f"{chance.random()}"} for row in rows]
    chance.shuffle(shuffled)
    assert sides(load_dataset(str(write_jsonl(folder / "split.jsonl", shuffled)))) == first


def test_the_split_is_a_hash_of_the_question_as_hashlib_has_it(tmp_path: Path) -> None:
    expected = {}
    for question, _ in PAIRS:
        bucket = int(hashlib.sha256(question.encode("utf-8")).hexdigest()[:2], 16) % 10
        expected[question] = {0: "validation", 1: "test"}.get(bucket, "train")
    assert sides(load_dataset(str(write_jsonl(tmp_path / "a.jsonl", ROWS)))) == expected


def test_a_tenth_each_goes_to_validation_and_test(tmp_path: Path) -> None:
    dataset = load_dataset(str(write_jsonl(tmp_path / "a.jsonl", [{"question": f"q {n}", "answer": "a"} for n in range(3000)])))
    assert 0.08 < len(dataset.validation) / 3000 < 0.12
    assert 0.08 < len(dataset.test) / 3000 < 0.12
    assert len(examples(dataset)) == 3000


def test_the_same_question_falls_on_the_same_side_however_it_is_given(tmp_path: Path) -> None:
    plain = sides(load_dataset(str(write_jsonl(tmp_path / "a.jsonl", ROWS))))
    padded = load_dataset(str(write_jsonl(tmp_path / "b.jsonl", [{**row, "question": f" {row['question']}\n"} for row in ROWS])))
    chats = [{"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]} for q, a in PAIRS]
    assert {question.strip(): side for question, side in sides(padded).items()} == plain
    assert sides(load_dataset(str(write_jsonl(tmp_path / "c.jsonl", chats)))) == plain


def rows_that_all_hash_to_train(count: int) -> list[Row]:
    questions = (f"question {n}" for n in range(10**6))
    found = (q for q in questions if int(hashlib.sha256(q.encode()).hexdigest()[:2], 16) % 10 >= 2)
    return [{"question": next(found), "answer": "a"} for _ in range(count)]


def test_a_small_file_still_gets_something_to_validate_on(tmp_path: Path) -> None:
    dataset = load_dataset(str(write_jsonl(tmp_path / "a.jsonl", rows_that_all_hash_to_train(5))))
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (4, 1, 0)


def test_what_a_small_file_validates_on_does_not_depend_on_the_order(tmp_path: Path) -> None:
    rows = rows_that_all_hash_to_train(5)
    forwards = sides(load_dataset(str(write_jsonl(tmp_path / "a.jsonl", rows))))
    assert sides(load_dataset(str(write_jsonl(tmp_path / "a.jsonl", rows[::-1])))) == forwards


def test_all_answers_to_a_question_stay_on_one_side_in_a_small_file_too(tmp_path: Path) -> None:
    rows = [{"question": row["question"], "answer": tone} for row in rows_that_all_hash_to_train(3) for tone in TONES]
    dataset = load_dataset(str(write_jsonl(tmp_path / "a.jsonl", rows)))
    assert {example.question for example in dataset.train} & {example.question for example in dataset.validation} == set()


# Refusals

GOOD = "".join(json.dumps(row) + "\n" for row in ROWS[:2])
TOO_DEEP = "[" * 100_000
BAD_JSONL = [
    ("not json", "line 3: not JSON"),
    ('{"question": "q", "answer": "a"', "line 3: not JSON"),
    (TOO_DEEP, "line 3: nested too deeply"),
    ('{"question": "q", "answer": "a", "n": ' + "1" * 5000 + "}", "line 3"),
    ("[1, 2]", "line 3: a row must be an object with named fields"),
    ('"text"', "line 3: a row must be an object"),
    ("null", "line 3: a row must be an object"),
    ("{}", "line 3: neither question and answer, nor messages, nor text"),
    ('{"text": "  "}', "line 3: neither question and answer, nor messages, nor text"),
    ('{"text": 5}', "line 3: neither question"),
    ('{"question": " ", "answer": "a"}', "line 3: the question is empty"),
    ('{"question": null, "answer": "a"}', "line 3: the question is empty"),
    ('{"question": "Why me?"}', "line 3: no 'answer' to the question 'Why me?'"),
    ('{"question": "Why me?", "answer": ""}', "line 3: no 'answer' to the question 'Why me?'"),
    ('{"question": "Why me?", "answer": 42}', "line 3: 'answer' must be text, not 42: put it in quotes"),
    ('{"question": "q", "answer": "a", "split": "dev"}', "line 3: unknown split 'dev': use train, validation, test"),
    ('{"question": "q", "answer": "a", "split": 1}', "line 3: unknown split 1"),
    ('{"question": "q", "answer": "a", "split": ["train"]}', "line 3: unknown split"),
    ('{"question": "half an emoji \\ud83d", "answer": "a"}', "line 3"),
    ('{"question": "q", "answer": "half an emoji \\ud83d"}', "line 3"),
    ('{"messages": []}', "line 3: messages need a question and an answer"),
    ('{"messages": "hello"}', "line 3: not JSON"),
    ('{"messages": {"role": "user"}}', "line 3: messages need a question and an answer"),
    ('{"messages": [{"role": "assistant", "content": "a"}]}', "line 3: messages need a question and an answer"),
    (
        '{"messages": [{"role": "user", "content": "q"}, {"role": "tool", "content": "a"}]}',
        "line 3, message 2: a message of the role 'tool': irm-lite trains on what system, user and assistant say",
    ),
    (
        '{"messages": [{"role": "user"}, {"role": "assistant", "content": "a"}]}',
        "line 3, message 1: a message without role or content",
    ),
    ('{"messages": ["q", "a"]}', "line 3, message 1: a message without role or content"),
    (
        '{"messages": [{"role": "user", "content": 1}, {"role": "assistant", "content": "a"}]}',
        "line 3, message 1: a message without role or content",
    ),
    (
        '{"messages": [{"role": "user", "content": "q"}, {"role": "user", "content": "a"}]}',
        "the last message is not an answer of the assistant",
    ),
    (
        '{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": " "}]}',
        "the last message is not an answer",
    ),
]


@pytest.mark.parametrize(("line", "fragment"), BAD_JSONL, ids=[f"{line[:40]}" for line, _ in BAD_JSONL])
def test_a_bad_row_is_refused_with_its_file_and_line(tmp_path: Path, line: str, fragment: str) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text(GOOD + line + "\n", encoding="utf-8")
    with pytest.raises(DataError) as caught:
        load_dataset(str(path))
    assert caught.value.exit_code == 2
    assert str(path) in str(caught.value)
    assert fragment in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "content", "fragment"),
    [
        ("a.json", '[{"question": "q", "answer": "a"}, {"question": ""}]', "a.json, item 2: the question is empty"),
        ("a.json", '{"question": "q", "answer": "a"}', "is not a list of rows: write [{...}, {...}]"),
        ("a.json", "[", "a.json: not JSON (Expecting value at column 2): fix it, or fetch it again if it is cut short"),
        ("a.csv", 'question,answer\n"two\nlines",a\nq,\n', "a.csv, line 4: no 'answer' to the question 'q'"),
        ("a.csv", "question,reply\nq,a\n", "a.csv, line 2: no 'answer' to the question 'q': fill it in or remove the row"),
        ("a.csv", "frage,antwort\nq,a\n", "a.csv, line 2: neither question and answer"),
        ("a.csv", "question,answer\nWhy?,Because, well\nHow?,So\n", "a.csv, line 2"),  # a comma that should have been quoted
        ("a.csv", "question,answer\nq," + "a" * 1_048_577 + "\n", "a.csv, line 2: more than 1,048,576 characters: shorten"),
        (
            "a.csv",
            'question,answer\nq,"' + "a\n" * 600_000,
            "field larger than field limit (1048576): fix the quoting, and shorten",
        ),
        ("a.jsonl", "{" * 1_048_577, "a.jsonl, line 1: more than 1,048,576 characters: shorten or remove it"),
        ("a.jsonl", "\n" * 1_000_002, "a.jsonl has more than 1,000,000 rows: keep fewer"),
        ("a.csv", "text\n" + "\n" * 1_000_001, "a.csv has more than 1,000,000 rows: keep fewer"),
        ("a.txt", "a\n\n" * 1_000_001, "a.txt has more than 1,000,000 rows: keep fewer"),
        ("a.txt", "a" * 1_048_577, "a.txt, paragraph 1: more than 1,048,576 characters: shorten or remove it"),
        ("a.json", "[" + "[]," * 2_000_000 + "[]]", "a.json has more than 2,000,000 lists and objects: write it as .jsonl"),
        ("a.json", "[" + "0," * 1_000_000 + "0]", "a.json, item 1: a row must be an object"),
        ("a.json", "[" + " " * 33_554_432, "a.json is larger than 32 MiB: write it as .jsonl, or keep fewer samples"),
        ("a.txt", " " * 33_554_433, "a.txt is larger than 32 MiB"),
        ("a.json", " {" + " " * 67_108_864, "a.json is larger than 64 MiB: write it as .jsonl, or keep fewer samples"),
        ("a.jsonl", "", "has no samples: give at least a few dozen"),
        ("a.csv", "", "has no samples: give at least a few dozen"),
        ("a.txt", "\n\n  \n\n", "has no samples: give at least a few dozen"),
        ("a.txt", "One paragraph.", "a has too few samples to split (1 sample): give at least a few dozen"),
        ("a.json", "[]", "has no samples"),
        ("a.parquet", "PAR1 but not really", "is not a readable Parquet file"),
        (
            "a.docx",
            "text",
            "a.docx has a format that irm-lite does not read: give a .jsonl, .json, .csv, .tsv, .parquet or .txt file",
        ),
    ],
)
def test_a_bad_file_is_refused_with_what_is_wrong(tmp_path: Path, name: str, content: str, fragment: str) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(DataError) as caught:
        load_dataset(str(tmp_path / name))
    assert caught.value.exit_code == 2
    assert fragment in str(caught.value)


def test_a_bad_row_of_a_parquet_file_is_named(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", [*ROWS[:3], {"question": "Why?", "answer": None}])
    with pytest.raises(DataError, match=r"a\.parquet, row 4: no 'answer' to the question 'Why\?'"):
        load_dataset(str(path))


@pytest.mark.parametrize("kind", ["jsonl", "json", "csv", "txt"])
@pytest.mark.parametrize("before", [20, 50_000])
def test_a_byte_that_is_not_utf_8_is_named_by_its_place(tmp_path: Path, kind: str, before: int) -> None:
    (tmp_path / f"a.{kind}").write_bytes(b" " * before + b"\xff")
    with pytest.raises(DataError, match=rf"is not UTF-8 text \(byte {before}\): save it as UTF-8"):
        load_dataset(str(tmp_path / f"a.{kind}"))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there is no file .*nowhere\.jsonl: check the path"):
        load_dataset(str(tmp_path / "nowhere.jsonl"))


def test_an_unknown_tone_is_answered_with_the_tones() -> None:
    with pytest.raises(
        DataError, match="there is no tone or file 'rage': the tones are anger, joy, neutral, sadness; or give a .jsonl"
    ):
        load_dataset("rage")


def test_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data.jsonl").mkdir()
    with pytest.raises(DataError, match="it is not an ordinary file"):
        load_dataset(str(tmp_path / "data.jsonl"))


def test_a_long_answer_is_read_whole_from_csv(tmp_path: Path) -> None:
    rows = [{"question": f"q{n}", "answer": "a" * 200_000} for n in range(3)]
    assert {len(each.answer) for each in examples(load_dataset(str(write_csv(tmp_path / "a.csv", rows))))} == {200_000}


@pytest.mark.slow
def test_a_squad_file_may_be_larger_than_a_list(tmp_path: Path) -> None:
    qas = [{"question": f"Why {n}?", "id": "5" * 24, "answers": [{"text": "So.", "answer_start": 0}]} for n in range(130_319)]
    document = {"version": "v2.0", "data": [{"title": "T", "paragraphs": [{"context": "c" * 30_000_000, "qas": qas}]}]}
    path = tmp_path / "train-v2.0.json"
    path.write_text(json.dumps(document))
    assert path.stat().st_size > 42_000_000  # SQuAD's own has 42.1 MB and as many questions
    assert len(examples(load_dataset(str(path)))) == 130_319


@pytest.mark.slow
def test_a_parquet_file_that_unpacks_to_much_is_refused(tmp_path: Path) -> None:
    text = pyarrow.array(["a" * 1_000_000] * 600)
    pyarrow.parquet.write_table(pyarrow.table({"text": text}), tmp_path / "a.parquet", compression="zstd")
    assert (tmp_path / "a.parquet").stat().st_size < 2000
    with pytest.raises(DataError, match=r"a\.parquet unpacks to more than 256 MiB: keep fewer samples"):
        load_dataset(str(tmp_path / "a.parquet"))
    pyarrow.parquet.write_table(pyarrow.table({"text": pyarrow.array(["a"] * 1_000_001)}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet has more than 1,000,000 rows"):
        load_dataset(str(tmp_path / "a.parquet"))
    wide = pyarrow.table({f"c{n}": pyarrow.nulls(170_000, pyarrow.bool_()) for n in range(100)})
    pyarrow.parquet.write_table(wide, tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet has more than 16,000,000 values"):
        load_dataset(str(tmp_path / "a.parquet"))


@pytest.mark.slow
def test_a_conversation_of_millions_of_messages_is_refused(tmp_path: Path) -> None:
    message = {"role": "assistant", "content": "a"}
    write_jsonl(tmp_path / "a.jsonl", [{"messages": [message] * 20_001}] * 100)
    with pytest.raises(DataError, match="more than 2,000,000 messages: keep fewer samples"):
        load_dataset(str(tmp_path / "a.jsonl"))


def test_a_file_of_more_than_256_mebibytes_is_refused_before_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").touch()
    os.truncate(tmp_path / "a.jsonl", 256 * 1024**2 + 1)  # sparse: it takes no room
    with pytest.raises(DataError, match=r"is larger than 256 MiB: keep fewer samples"):
        load_dataset(str(tmp_path / "a.jsonl"))


@pytest.mark.parametrize(("module", "spec"), [("pyarrow", "a.parquet"), ("datasets", "hf:owner/name")])
def test_a_missing_library_is_named_with_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, spec: str
) -> None:
    write_parquet(tmp_path / "a.parquet", ROWS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingPart, match=r"pip install 'irm-lite\[data\]'") as caught:
        load_dataset(spec)
    assert caught.value.exit_code == 2


@quick
@given(
    st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=8), lambda x: st.lists(x, max_size=3), max_leaves=5),
    st.data(),
)
def test_any_values_in_the_known_fields_are_read_or_refused_by_line(
    tmp_path_factory: pytest.TempPathFactory, value: Any, data: st.DataObject
) -> None:
    field = data.draw(st.sampled_from(["question", "answer", "text", "messages", "split"]))
    path = tmp_path_factory.getbasetemp() / "fuzz.jsonl"
    write_jsonl(path, [*ROWS, {"question": "q", "answer": "a", field: value}])
    try:
        dataset = load_dataset(str(path))
    except DataError as error:
        assert f"{path}, line {len(ROWS) + 1}" in str(error)
        return
    assert len(examples(dataset)) == len(ROWS) + 1


# The hub, from a fresh process: this one was told to stay offline

HUB_PROBE = """
import json, socket, sys, time
from pathlib import Path
asked, waits = [], []
def no_network(host, *rest, **more):
    asked.append(str(host))
    raise socket.gaierror("no network in this test")
socket.getaddrinfo = no_network
time.sleep = waits.append
from irm_lite.data.dataset import load_dataset
from irm_lite.core.errors import IrmLiteError
answer = {}
try:
    dataset = load_dataset(sys.argv[1])
    answer["splits"] = {split: [e.answer for e in getattr(dataset, split)] for split in ("train", "validation", "test")}
except IrmLiteError as error:
    answer.update(error=type(error).__name__, exit_code=error.exit_code, message=str(error))
print(json.dumps({**answer, "asked": asked, "waits": waits}))
"""


def probe_hub(spec: str, home: Path) -> dict[str, Any]:
    """What `load_dataset(spec)` does in a process that may use the network, with the hosts that it asks for."""
    env = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("HF_", "TRANSFORMERS_")) and "proxy" not in key.lower()
    }
    done = subprocess.run(
        [sys.executable, "-c", HUB_PROBE, spec],
        env={**env, "HF_HOME": str(home)},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


@pytest.mark.slow
def test_a_hub_dataset_without_download_is_refused_at_once_and_asks_no_host(tmp_path: Path) -> None:
    result = probe_hub("hf:somebody/some-data", tmp_path)
    assert (result["error"], result["exit_code"]) == ("DataError", 2)
    assert "the dataset somebody/some-data cannot be loaded" in result["message"]
    assert "add --download" in result["message"]
    assert (result["asked"], result["waits"]) == ([], [])


@pytest.mark.slow
def test_a_hub_dataset_on_this_machine_keeps_its_splits(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    for split in SPLITS:
        write_jsonl(folder / f"{split}.jsonl", [{"question": f"{split} {n}", "answer": f"{split} {n}"} for n in range(3)])
    make = "import datasets, sys; datasets.load_dataset(sys.argv[1], cache_dir=sys.argv[2])"
    cache = tmp_path / "home" / "datasets"
    subprocess.run([sys.executable, "-c", make, str(folder), str(cache)], check=True, capture_output=True, timeout=120)
    [made] = [path for path in cache.iterdir() if path.is_dir()]
    made.rename(cache / "owner___data")  # as one that came from the hub lies there
    result = probe_hub("hf:owner/data", tmp_path / "home")
    assert result.get("splits") == {split: [f"{split} {n}" for n in range(3)] for split in SPLITS}, result


def test_a_folder_is_no_hub_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = write_jsonl(tmp_path / "secret.jsonl", ROWS)
    folder = tmp_path / "here" / "owner" / "name"
    folder.mkdir(parents=True)
    (folder / "README.md").write_text(f"---\nconfigs:\n- config_name: default\n  data_files: {secret}\n---\n")
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(DataError, match=r"rename the folder \./owner/name, or give its file"):
        load_dataset("hf:owner/name")
    for name in (str(folder), "../here", "../../x", "./owner", "owner/name/", "owner", "~/x", "owner/..", "owner/name\n"):
        with pytest.raises(DataError, match="names no dataset of the hub: write hf:owner/name"):
            load_dataset(f"hf:{name}")
