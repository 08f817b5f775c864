"""The columns of a row by the names that people give them: in capitals, with null where another set's column is filled."""

from typing import Any

CONVERSATIONS = ("messages", "conversations", "conversation")
QUESTIONS = ("question", "instruction", "prompt")
INPUTS = ("input", "context")  # what an instruction is to be carried out on
ANSWERS = ("output", "completion", "response", "chosen")  # and "answer", or whatever --answer-column says
SYSTEM = ("system", "system_prompt")
_KNOWN = {*CONVERSATIONS, *QUESTIONS, *ANSWERS, "answer", "text"}


def plain(name: str) -> str:
    """A column's name as it is compared."""
    return name.strip("\ufeff \t").casefold()


def is_known(name: str) -> bool:
    """Whether a column of this name alone tells that a table was cut rightly."""
    return plain(name) in _KNOWN


def filled(row: dict[str, Any]) -> dict[str, Any]:
    """Those of a row's columns that hold anything, by their plain names."""
    found: dict[str, Any] = {}
    for name, value in row.items():
        key = plain(name)
        if _holds(value) and (key not in found or key == name):
            found[key] = value
    return found


def _holds(value: Any) -> bool:
    if value is None or (isinstance(value, float) and value != value):  # NaN: what tables of numbers have for nothing
        return False
    return bool(value.strip()) if isinstance(value, str) else not (isinstance(value, list | dict) and not value)
