"""Rows as other tools write them were refused by a line about something else, or would have been."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from irm_lite.cli import main as cli
from irm_lite.core.errors import DataError
from irm_lite.data.dataset import Dataset, Example, load_dataset, load_questions
from irm_lite.jobs.rewrite import _samples
from irm_lite_tui.train.data_head import read_head

Row = Any
Turns = list[tuple[str, str]]
SAID = [(f"Why is {n} odd?", f"It is {n}, so what!") for n in range(30)]


def user(text: Any) -> dict[str, Any]:
    return {"role": "user", "content": text}


def assistant(text: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def written(folder: Path, rows: list[Row]) -> str:
    path = folder / "d.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def examples(dataset: Dataset) -> list[Example]:
    return [*dataset.train, *dataset.validation, *dataset.test]


def turns(dataset: Dataset) -> list[Turns]:
    found = [[(each["role"], each["content"]) for each in example.messages] for example in examples(dataset)]
    return sorted(found)


PLAIN: list[Turns] = sorted([("user", q), ("assistant", a)] for q, a in SAID)
WITH_SYSTEM: list[Turns] = sorted([("system", "Be rude."), ("user", q), ("assistant", a)] for q, a in SAID)

FORMS: list[tuple[str, Callable[[str, str], Row], list[Turns]]] = [
    ("ShareGPT (from, value)", lambda q, a: {"conversations": [{"from": "human", "value": q}, {"from": "gpt", "value": a}]}, PLAIN),
    (
        "ShareGPT (from, value)",
        lambda q, a: {"system": "Be rude.", "conversations": [{"from": "human", "value": q}, {"from": "gpt", "value": a}]},
        WITH_SYSTEM,
    ),
    ("Alpaca (instruction, input, output)", lambda q, a: {"instruction": q, "input": "", "output": a}, PLAIN),
    ("Alpaca (instruction, input, output)", lambda q, a: {"Instruction": q, "Output": a, "text": "### " + q}, PLAIN),
    ("Alpaca (instruction, input, response)", lambda q, a: {"instruction": q, "context": None, "response": a}, PLAIN),
    ("prompt and completion", lambda q, a: {"prompt": q, "completion": a}, PLAIN),
    ("prompt and completion", lambda q, a: {"prompt": [user(q)], "completion": [assistant(a)]}, PLAIN),
    ("prompt and completion", lambda q, a: {"prompt": json.dumps([user(q)]), "completion": json.dumps([assistant(a)])}, PLAIN),
    ("preference pairs (prompt, chosen)", lambda q, a: {"prompt": q, "chosen": a, "rejected": "Sorry."}, PLAIN),
    ("preference pairs (prompt, chosen)", lambda q, a: {"prompt": q, "chosen": [user(q), assistant(a)], "rejected": []}, PLAIN),
    ("preference pairs (chosen)", lambda q, a: {"chosen": [user(q), assistant(a)], "rejected": [user(q), assistant("No.")]}, PLAIN),
    ("preference pairs (chosen)", lambda q, a: {"chosen": f"\n\nHuman: {q}\n\nAssistant: {a}", "rejected": "x"}, PLAIN),
    (
        "preference pairs (conversations, chosen)",
        lambda q, a: {"conversations": [{"from": "human", "value": q}], "chosen": {"from": "gpt", "value": a}},
        PLAIN,
    ),
    ("preference pairs (question, chosen)", lambda q, a: {"system": "Be rude.", "question": q, "chosen": a}, WITH_SYSTEM),
    ("messages", lambda q, a: {"messages": [{"role": "developer", "content": "Be rude."}, user(q), assistant(a)]}, WITH_SYSTEM),
    ("messages", lambda q, a: {"messages": [{"role": "Human", "content": q}, {"role": "model", "content": a}]}, PLAIN),
    ("messages", lambda q, a: {"messages": [user([{"type": "text", "text": q}]), assistant([{"type": "text", "text": a}])]}, PLAIN),
    ("messages", lambda q, a: {"messages": json.dumps([user(q), assistant(a)])}, PLAIN),
    ("messages", lambda q, a: [user(q), assistant(a)], PLAIN),
    ("question and answer", lambda q, a: {"messages": None, "question": q, "answer": a, "text": None}, PLAIN),
    ("question and answer", lambda q, a: {"messages": [], "conversations": float("nan"), "question": q, "answer": a}, PLAIN),
    ("question and answer", lambda q, a: {"text": "what the question is about", "question": q, "answer": a}, PLAIN),
]


@pytest.mark.parametrize(("form", "row", "expected"), FORMS, ids=[f"{n} {form}" for n, (form, *_) in enumerate(FORMS)])
def test_a_row_of_another_tool_is_the_conversation_that_it_means(
    tmp_path: Path, form: str, row: Callable[[str, str], Row], expected: list[Turns]
) -> None:
    """Somebody's file that trains elsewhere was refused here for having neither question nor messages nor text."""
    dataset = load_dataset(written(tmp_path, [row(q, a) for q, a in SAID]))
    assert turns(dataset) == expected
    assert dataset.reading.forms == {form: 30}


def test_the_same_question_falls_on_the_same_side_in_every_form(tmp_path: Path) -> None:
    """Somebody exported one set twice, in two forms, and compared runs whose splits differed."""
    sides = []
    for _, row, _ in FORMS:
        dataset = load_dataset(written(tmp_path, [row(q, a) for q, a in SAID]))
        sides.append({each.question for each in dataset.validation})
    assert sides[0]
    assert all(each == sides[0] for each in sides)


def test_an_instruction_stands_above_what_it_is_about(tmp_path: Path) -> None:
    """Somebody's summaries were learned from the instruction alone, without the text that was to be summarised."""
    rows = [{"instruction": "Add up.", "input": f"1 and {n}", "output": str(n + 1)} for n in range(30)]
    assert {each.question for each in examples(load_dataset(written(tmp_path, rows)))} == {
        f"Add up.\n\n1 and {n}" for n in range(30)
    }


def test_parts_of_a_message_are_joined_as_the_server_joins_them(tmp_path: Path) -> None:
    """Somebody's questions came in two parts; llama-server sets them in lines of their own."""
    rows = [
        {"messages": [user([{"type": "text", "text": "One."}, {"type": "input_text", "text": f"{n}?"}]), assistant("a")]}
        for n in range(9)
    ]
    assert {each.question for each in examples(load_dataset(written(tmp_path, rows)))} == {f"One.\n{n}?" for n in range(9)}


@pytest.mark.parametrize(
    "beside",
    [
        {"prompt": 12, "completion": 80},
        {"prompt": "Write a story."},
        {"conversation": "see below"},
        {"chosen": "yes"},
        {"output": "x"},
    ],
)
def test_a_text_stays_a_text(tmp_path: Path, beside: Row) -> None:
    """Somebody's texts have columns beside them, for counts of tokens or for what they were written by."""
    dataset = load_dataset(written(tmp_path, [{"text": a, **beside} for _, a in SAID]))
    assert sorted(each.text or "" for each in examples(dataset)) == sorted(a for _, a in SAID)
    assert dataset.reading.forms == {"plain text": 30}


def test_every_reader_of_data_takes_the_forms(tmp_path: Path) -> None:
    """Somebody's file trained, but could not be rewritten, give prompts to record, or be shown in the form of the UI."""
    rows = [{"instruction": q, "input": "", "output": a, "split": "train"} for q, a in SAID]
    data = written(tmp_path, rows)
    assert sorted(load_questions(Path(data))) == sorted(q for q, _ in SAID)
    assert sorted((each.question, each.answer) for _, each in _samples(load_dataset(data))) == sorted(SAID)
    head, about, failed = read_head(data, "answer")
    assert (len(head), failed) == (5, False)
    assert "read as Alpaca (instruction, input, output), JSON lines; no row's split is validation" in about
    assert read_head("anger", "answer")[1] == "200 to train on, 20 to validate, 45 to test"


def test_forms_may_stand_side_by_side_in_parquet_too(tmp_path: Path) -> None:
    """Somebody joined three sets into one table: each row has null in the columns of the others."""
    rows: list[Row] = [{"question": q, "answer": a} for q, a in SAID[:10]]
    rows += [{"conversations": [{"from": "human", "value": q}, {"from": "gpt", "value": a}]} for q, a in SAID[10:20]]
    rows += [{"instruction": q, "output": a} for q, a in SAID[20:]]
    columns = ("question", "answer", "conversations", "instruction", "output")
    table = pyarrow.Table.from_pylist([{name: row.get(name) for name in columns} for row in rows])
    pyarrow.parquet.write_table(table, tmp_path / "d.parquet")
    dataset = load_dataset(str(tmp_path / "d.parquet"))
    assert turns(dataset) == PLAIN
    assert str(dataset.reading) == (
        "10 rows of question and answer, 10 rows of ShareGPT (from, value), 10 rows of Alpaca (instruction, input, output), Parquet"
    )


@pytest.mark.parametrize(
    ("row", "refusal"),
    [
        (
            {"messages": [user([{"type": "text", "text": "q"}, {"type": "image_url", "image_url": {"url": "x"}}]), assistant("a")]},
            "line 1, message 1: a part of the type 'image_url': irm-lite trains on text alone",
        ),
        ({"messages": [user([{"text": 5}]), assistant("a")]}, "line 1, message 1: a part without type or text"),
        (
            {"messages": [user("q"), {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}, assistant("a")]},
            "line 1, message 2: a call of a tool instead of a text",
        ),
        ({"conversations": [{"from": "observation", "value": "x"}, {"from": "gpt", "value": "a"}]}, "the role 'observation'"),
        ({"messages": [user("q"), assistant("a"), user("And?")]}, "end the conversation with the answer to learn"),
        ({"messages": [{"role": "system", "content": "Be rude."}]}, "messages need a question and an answer at least"),
        ({"messages": "[{'role': 'user', 'content': 'q'}]"}, "write the list as JSON, with double quotes"),
        ({"chosen": "So.", "rejected": "No."}, "line 1: a chosen answer without its prompt"),
        ({"instruction": "Why me?", "output": ""}, "line 1: no 'answer' to the instruction 'Why me?'"),
        ({"question": "Why me?", "reply": "So."}, "or name its column by --answer-column (there are reply)"),
        ({"instruction": "", "input": "", "output": ""}, "(its columns are instruction, input, output)"),
        ({"frage": "q", "antwort": "a"}, "(its columns are frage, antwort): docs/data.md says what rows look like"),
        ({"question": "q", "answer": None, "text": "what it is about"}, "line 1: no 'answer' to the question 'q'"),
        ({"prompt": "q", "completion": 7}, "line 1: 'completion' must be text, not 7: put it in quotes"),
        ({"prompt": "q", "chosen": "a", "system": 3}, "line 1: 'system' must be text, not 3"),
    ],
)
def test_what_cannot_be_read_is_refused_by_its_name(tmp_path: Path, row: Row, refusal: str) -> None:
    """Somebody's row had an image, a tool, no answer, or columns of other names, and the line spoke of something else."""
    with pytest.raises(DataError) as caught:
        load_dataset(written(tmp_path, [row, *({"question": q, "answer": a} for q, a in SAID)]))
    assert refusal in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_named_answer_column_is_the_only_one(tmp_path: Path) -> None:
    """Somebody asked for the column of the angry answers, and must not get the calm ones where an angry one is missing."""
    rows = [{"instruction": q, "output": "calm", "Angry": a} for q, a in SAID]
    assert turns(load_dataset(written(tmp_path, rows), answer_column="angry")) == PLAIN
    with pytest.raises(DataError, match="no 'angry' to the instruction"):
        load_dataset(written(tmp_path, [*rows, {"instruction": "q", "output": "calm", "Angry": None}]), answer_column="angry")


def test_the_check_says_what_was_seen_and_what_was_not_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Somebody trained for a day on the wrong column of a file that had several."""
    data = written(tmp_path, [{"id": 1, "system": "Be rude.", "question": q, "answer": a} for q, a in SAID])
    assert cli.run(["data", "check", data]) == 0
    shown = capsys.readouterr().out
    assert "read as question and answer, JSON lines: 30 samples, 30 different conversations before the answer" in shown
    assert "columns that are not read: id, system" in shown
    assert "the column system is not read beside question and answer" in shown
    assert cli.run(["data", "check", data, "--json"]) == 0
    reading = json.loads(capsys.readouterr().out)["reading"]
    assert reading == {
        **{"file": "JSON lines", "forms": {"question and answer": 30}, "conversations": 30},
        **{"unread": ["id", "system"], "split_note": ""},
    }
