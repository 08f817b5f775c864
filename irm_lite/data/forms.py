"""A row -> an example. Each form that rows have is tried in its turn; the first one that is filled in the row is read.

messages                            a conversation: role and content, or ShareGPT's from and value
question + answer                   `answer` is whatever --answer-column says
conversations                       as messages
instruction (+ input) + output      Alpaca's
prompt + completion                 texts or lists of messages
(prompt +) chosen                   preference pairs: `rejected` is not read
text                                a plain text
"""

import re
import reprlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from irm_lite.core.errors import DataError
from irm_lite.core.visible_text import short
from irm_lite.data.columns import ANSWERS, CONVERSATIONS, INPUTS, QUESTIONS, SYSTEM, filled, plain
from irm_lite.data.example import Example, Message
from irm_lite.data.messages import HINT, as_list, is_sharegpt, read_messages, require_answered
from irm_lite.data.reading.json_rows import messages_in
from irm_lite.data.reading.limits import MAX_TEXT
from irm_lite.data.splits import SPLITS

_PAGE = "docs/data.md says what rows look like"
_FILL = "fill it in or remove the row"
_TURN = re.compile(r"(?:\A|\n\n)(Human|Assistant):[ ]?")  # in texts that hold a whole conversation, as hh-rlhf's


@dataclass(frozen=True)
class Placed:
    """What was read in a row: the sample, the split that the row names, the form's name, and the filled columns left unread."""

    example: Example
    split: str | None
    form: str
    unread: tuple[str, ...]


def placed(row: Any, where: str, answer_column: str) -> Placed:
    """Raises DataError, naming the row by `where`, where nothing in it can be used."""
    if isinstance(row, list) and row and all(isinstance(each, dict) for each in row):
        row = {"messages": row}
    if not isinstance(row, dict):
        raise DataError(f"{where}: a row must be an object with named fields", _PAGE)
    columns = filled(row)
    form, taken, messages, text = _read(row, columns, where, answer_column)
    whole = "".join((*(message["content"] for message in messages), text or ""))
    if len(whole) > MAX_TEXT:
        raise DataError(f"{where}: more than {MAX_TEXT:,} characters", "shorten or remove it")
    try:
        whole.encode()
    except UnicodeEncodeError:
        raise DataError(f"{where}: half a character (a lone surrogate) in the text", "fix or remove it") from None
    split = columns.get("split") or None
    name = split.strip().casefold() if isinstance(split, str) else split
    if name not in SPLITS and "split" not in row:
        name = None  # a column Split that means something else
    if name is not None and (not isinstance(name, str) or name not in SPLITS):
        raise DataError(f"{where}: unknown split {reprlib.repr(split)}", f"use {', '.join(SPLITS)}")
    unread = tuple(each for each in columns if each and each not in taken and each != "split")
    return Placed(Example(messages, text, where), name, form, unread)


_Read = tuple[str, Sequence[str], tuple[Message, ...], str | None]  # the form, the columns taken, and what an example has


def _read(row: dict[str, Any], columns: dict[str, Any], where: str, answer_column: str) -> _Read:
    answer = plain(answer_column)
    answers = (answer, *ANSWERS) if answer == "answer" else (answer,)
    if "messages" in columns:
        return _conversation("messages", columns, where)
    if "question" in columns and answer in columns:
        return _pair(columns, ["question"], answer, where, as_ever=True)
    text = columns.get("text")
    plain_text = isinstance(text, str) and ("question" not in row or ("question" not in columns and answer not in columns))
    if plain_text:  # what stands beside it counts only as what can be a conversation
        columns = {name: value for name, value in columns.items() if _may_tell(name, value, columns)}
    if name := next((each for each in CONVERSATIONS if each in columns), None):
        return _conversation(name, columns, where)
    given = next((each for each in answers if each in columns), None)
    for asked in (["question"], ["instruction", *INPUTS], ["prompt"]):
        found = [name for name in asked if name in columns]
        if given and found:
            return _pair(columns, found, given, where, as_ever=False)
    if given == "chosen":
        return "preference pairs (chosen)", ["chosen"], require_answered(_whole(columns["chosen"], where), where), None
    if plain_text:
        return "plain text", ["text"], (), text
    raise _nothing(row, columns, where, answer_column)


def _may_tell(name: str, value: Any, columns: dict[str, Any]) -> bool:
    """Whether a column is one of a conversation: tables of texts have columns of the same names for other things."""
    if name in CONVERSATIONS:
        return isinstance(value, list) or (isinstance(value, str) and value.lstrip().startswith("["))
    if name == "chosen" and isinstance(value, str) and not any(asked in columns for asked in QUESTIONS):
        return bool(_TURN.match(value))
    return isinstance(value, str | list | dict)


def _conversation(name: str, columns: dict[str, Any], where: str) -> _Read:
    held = as_list(columns[name], where)
    messages = read_messages(held, where)
    if "chosen" in columns and messages[-1]["role"] != "assistant":
        messages += _said(columns["chosen"], "assistant", where, "chosen", lists=True)
        return f"preference pairs ({name}, chosen)", (name, "chosen"), require_answered(messages, where), None
    form, taken = "ShareGPT (from, value)" if is_sharegpt(held) else "messages", [name]
    if name != "messages":
        messages, taken = _with_system(messages, columns, where), [name, *SYSTEM]
    return form, taken, require_answered(messages, where), None


def _pair(columns: dict[str, Any], asked: list[str], answer: str, where: str, as_ever: bool) -> _Read:
    """The columns of a question, each with something in it, and the answer's. `as_ever`: question and answer, read as they always
    were: their texts are what they are, and no other column counts."""
    lists = not as_ever
    parts = [_said(columns[name], "user", where, name, lists) for name in asked]
    texts = [message["content"] for part in parts for message in part]
    before = parts[0] if len(parts) == 1 else [{"role": "user", "content": "\n\n".join(texts)}]
    said = _said(columns[answer], "assistant", where, answer, lists)
    messages = said if said[0]["role"] != "assistant" else [*before, *said]  # some give the prompt in the answer's list too
    taken = [*asked, answer]
    if not as_ever:
        messages, taken = _with_system(messages, columns, where), [*taken, *INPUTS, *SYSTEM]
    return _name(asked[0], answer), taken, require_answered(messages, where), None


def _name(asked: str, answer: str) -> str:
    if answer == "chosen":
        return f"preference pairs ({asked}, chosen)"
    return f"Alpaca (instruction, input, {answer})" if asked == "instruction" else f"{asked} and {answer}"


def _said(value: Any, role: str, where: str, column: str, lists: bool) -> list[Message]:
    """What a column holds: a text of the role, or messages. `lists`: a text may hold messages as JSON."""
    held = messages_in(value) if lists and isinstance(value, str) else None
    if isinstance(value, str) and held is None:
        return [{"role": role, "content": value}]
    if held is None and not isinstance(value[0] if isinstance(value, list) else value, dict):
        raise DataError(f"{where}: {column!r} must be text, not {reprlib.repr(value)}", "put it in quotes")
    return read_messages(held or as_list([value] if isinstance(value, dict) else value, where), where)


def _whole(value: Any, where: str) -> list[Message]:
    """A conversation in one column: messages, or a text with a Human: and an Assistant: in turns."""
    if not isinstance(value, str) or messages_in(value) is not None:
        return read_messages(as_list(value, where), where)
    opening, *turns = _TURN.split(value)
    if opening.strip() or not turns:
        raise DataError(f"{where}: a chosen answer without its prompt", "add a column prompt, or give lists of messages")
    return [
        {"role": "user" if who == "Human" else "assistant", "content": said.strip()}
        for who, said in zip(turns[::2], turns[1::2], strict=True)
    ]


def _with_system(messages: list[Message], columns: dict[str, Any], where: str) -> list[Message]:
    """The messages after what a column of its own has for the system message."""
    system = next((columns[name] for name in SYSTEM if name in columns), None)
    if system is None or any(each["role"] == "system" for each in messages):
        return messages
    if not isinstance(system, str):
        raise DataError(f"{where}: 'system' must be text, not {reprlib.repr(system)}", "put it in quotes")
    return [{"role": "system", "content": system}, *messages]


def _nothing(row: dict[str, Any], columns: dict[str, Any], where: str, answer_column: str) -> DataError:
    """Why a row holds no sample."""
    names = {plain(name) for name in row}
    if not columns and names & {*CONVERSATIONS}:
        return DataError(f"{where}: messages need a question and an answer at least", HINT)
    if "question" in names and "question" not in columns:
        return DataError(f"{where}: the question is empty", _FILL)
    asked = next((name for name in QUESTIONS if name in columns), None)
    if asked:
        told = reprlib.repr(columns[asked]) if not isinstance(columns[asked], str) else repr(columns[asked].strip()[:40])
        others = [name for name in row if plain(name) not in QUESTIONS]
        named = answer_column in row or not others
        hint = _FILL if named else f"{_FILL}, or name its column by --answer-column (there are {_names(others)})"
        return DataError(f"{where}: no {answer_column!r} to the {asked} {told}", hint)
    has = f"its columns are {_names(row)}" if row else "it is empty"
    what = f"{where}: neither question and {answer_column}, nor messages, nor text, nor another form that is known"
    return DataError(f"{what} ({has})", _PAGE)


def _names(columns: Iterable[str]) -> str:
    return ", ".join(short(name, 24) for name in islice(columns, 8))
