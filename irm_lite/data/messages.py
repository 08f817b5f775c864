"""Lists of messages as today's APIs and older data sets write them -> roles and texts, or a refusal that names the message."""

import reprlib
from typing import Any

from irm_lite.core.errors import DataError
from irm_lite.data.example import Message
from irm_lite.data.reading.json_rows import parse_json

HINT = "messages are [{role, content}, ...], the last one the assistant's"
_ROLES = {
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("user", "human"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "model", "bot", "ai"), "assistant"),
}
_TEXTS = ("text", "input_text", "output_text")


def as_list(value: Any, where: str) -> list[Any]:
    """The list of messages in a column, as it stands there or as a text that holds it as JSON, as CSV has to."""
    if isinstance(value, str):
        hint = "write the list as JSON, with double quotes" if value.lstrip().startswith("[{'") else "fix or remove it"
        value = parse_json(value, where, hint)
    if not isinstance(value, list) or not value:
        raise DataError(f"{where}: messages need a question and an answer at least", HINT)
    return value


def is_sharegpt(messages: list[Any]) -> bool:
    """Whether the messages name who speaks by `from`, as ShareGPT's do."""
    return isinstance(messages[0], dict) and messages[0].get("role") is None


def read_messages(messages: list[Any], where: str) -> list[Message]:
    """Roles and texts. Raises DataError, naming the message."""
    return [_message(each, f"{where}, message {number}") for number, each in enumerate(messages, 1)]


def require_answered(messages: list[Message], where: str) -> tuple[Message, ...]:
    """The messages. Raises DataError where they do not end with an answer."""
    if len(messages) < 2:
        raise DataError(f"{where}: messages need a question and an answer at least", HINT)
    if messages[-1]["role"] != "assistant" or not messages[-1]["content"].strip():
        hint = "end the conversation with the answer to learn, or remove the row"
        raise DataError(f"{where}: the last message is not an answer of the assistant", hint)
    return tuple(messages)


def _message(message: Any, where: str) -> Message:
    if not isinstance(message, dict):
        raise DataError(f"{where}: a message without role or content", HINT)
    said = message.get("role") if message.get("role") is not None else message.get("from")
    content = message.get("content") if message.get("content") is not None else message.get("value")
    if not isinstance(said, str) or not said.strip():
        raise DataError(f"{where}: a message without role or content", HINT)
    role = _ROLES.get(said.strip().casefold())
    if role is None:
        hint = "irm-lite trains on what system, user and assistant say: remove the row"
        raise DataError(f"{where}: a message of the role {reprlib.repr(said)}", hint)
    if isinstance(content, list):
        content = "\n".join(_part(each, where) for each in content)  # llama-server joins them so
    if content is None and message.get("tool_calls"):
        raise DataError(f"{where}: a call of a tool instead of a text", "irm-lite trains on text alone: remove the row")
    if not isinstance(content, str):
        raise DataError(f"{where}: a message without role or content", HINT)
    return {"role": role, "content": content}


def _part(part: Any, where: str) -> str:
    """The text of a content part."""
    if isinstance(part, str):
        return part
    kind, text = (part.get("type"), part.get("text")) if isinstance(part, dict) else (None, None)
    if isinstance(kind, str) and kind not in _TEXTS:
        raise DataError(f"{where}: a part of the type {reprlib.repr(kind)}", "irm-lite trains on text alone: remove the row")
    if not isinstance(text, str):
        raise DataError(f"{where}: a part without type or text", 'parts are {"type": "text", "text": ...}')
    return text
