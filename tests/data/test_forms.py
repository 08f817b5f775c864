"""The forms of rows, held against each other: one conversation, written in every form that can hold it, is one example."""

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from irm_lite.data.example import Message
from irm_lite.data.forms import placed

TEXT = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20).filter(lambda text: bool(text.strip()))
TURNS = st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=3)


def messages(turns: list[tuple[str, str]], system: str | None) -> list[Message]:
    said = [{"role": role, "content": text} for turn in turns for role, text in zip(("user", "assistant"), turn, strict=True)]
    return [*([{"role": "system", "content": system}] if system else []), *said]


def sharegpt(said: list[Message]) -> list[dict[str, str]]:
    names = {"system": "system", "user": "human", "assistant": "gpt"}
    return [{"from": names[each["role"]], "value": each["content"]} for each in said]


def rows_of(said: list[Message]) -> list[Any]:
    """The rows that hold any conversation."""
    names = {"system": "Developer", "user": "USER", "assistant": "model"}
    in_parts = [
        {"role": names[each["role"]], "content": [{"type": "text", "text": each["content"]}], "name": None} for each in said
    ]
    return [
        {"messages": said, "text": None},
        {"Messages": json.dumps(said)},
        {"messages": in_parts},
        said,
        {"conversations": sharegpt(said), "messages": []},
        {"conversation": said},
        {"prompt": said[:-1], "completion": said[-1:]},
        {"prompt": json.dumps(said[:-1]), "response": json.dumps(said[-1:])},
        {"prompt": said[:-1], "chosen": said[-1:], "rejected": said[-1:]},
        {"chosen": said, "rejected": said},
        {"conversations": sharegpt(said[:-1]), "chosen": sharegpt(said[-1:])[0]},
    ]


@settings(deadline=None, max_examples=100)
@given(TURNS, st.none() | TEXT)
def test_a_conversation_is_the_same_in_every_form(turns: list[tuple[str, str]], system: str | None) -> None:
    said = messages(turns, system)
    for row in rows_of(said):
        assert list(placed(row, "row", "answer").example.messages) == said, row


@settings(deadline=None, max_examples=100)
@given(TEXT, TEXT, st.none() | TEXT)
def test_a_question_is_the_same_in_every_pair_of_columns(question: str, answer: str, system: str | None) -> None:
    said = messages([(question, answer)], system)
    asked = [
        ("instruction", "output"),
        ("prompt", "completion"),
        ("question", "chosen"),
        ("input", "response"),
        ("prompt", "answer"),
    ]
    rows: list[dict[str, Any]] = [{q: question, a: answer, "system": system} for q, a in asked]
    if system is None:
        rows.append({"Question": question, " answer": answer})
    for row in rows:
        assert list(placed(row, "row", "answer").example.messages) == said, row
