"""The lines that a client may send (docs/serve.md), read and checked without a model."""

import json
import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

from irm_lite.core.errors import DataError, InputError
from irm_lite.core.files.paths import is_utf8
from irm_lite.data.example import Message
from irm_lite.data.messages import read_messages
from irm_lite.steering.control_vector import require_scale

PROTOCOL = 1
LONGEST_LINE = 1 << 22  # bytes

Name = Literal["base", "vector", "irm", "adapter"]
COLUMNS: tuple[Name, ...] = get_args(Name)
Id = int | str | None  # a client's own, sent back with all that answers it

_MOST_TOKENS = 1 << 24


@dataclass(frozen=True)
class Chat:
    """Answer each column's conversation."""

    id: Id
    messages: dict[Name, tuple[Message, ...]]
    strength: float
    layers: str
    seed: int
    temperature: float
    max_new_tokens: int


@dataclass(frozen=True)
class Set:
    """Another strength or other layers for the answers that are being written; None: as they are."""

    id: Id
    strength: float | None
    layers: str | None


@dataclass(frozen=True)
class Load:
    """Take what steers a column from these places, or nothing."""

    id: Id
    column: Literal["vector", "irm", "adapter"]
    sources: tuple[str, ...]


@dataclass(frozen=True)
class Outputs:
    """What steered one token of the latest answers."""

    id: Id
    column: Name
    token: int


@dataclass(frozen=True)
class Stop:
    """End the answers that are being written, and drop those that wait."""

    id: Id


@dataclass(frozen=True)
class Quit:
    """End the server."""

    id: Id


Request = Chat | Set | Load | Outputs | Stop | Quit

_KEYS = {
    "chat": {"messages", "columns", "strength", "layers", "seed", "temperature", "max_new_tokens"},
    "set": {"strength", "layers"},
    "load": {"vector", "irm", "adapter"},
    "outputs": {"column", "token"},
    "stop": set[str](),
    "quit": set[str](),
}


def read_line(line: bytes) -> dict[str, Any]:
    """The line's JSON object. Raises InputError where it is none."""
    if len(line) >= LONGEST_LINE:
        raise InputError(f"a line of more than {LONGEST_LINE} bytes", "shorten the conversation")
    try:
        found = json.loads(line.decode())
    except (ValueError, RecursionError) as error:
        raise InputError(f"a line that is not JSON ({' '.join(str(error).split())[:120]})", "send one object a line") from None
    if not isinstance(found, dict):
        raise InputError("a line that is not a JSON object", 'send {"do": "chat", ...}')
    return found


def id_of(document: dict[str, Any]) -> Id:
    """The request's own id. Raises InputError where it is neither a number nor a text."""
    found = document.get("id")
    if found is None or (isinstance(found, int | str) and not isinstance(found, bool)):
        return found
    raise InputError("an id is a whole number or a text", 'send "id": 1')


def parse(document: dict[str, Any]) -> Request:
    """The request that the object is. Raises InputError, naming the key, where something in it cannot be used."""
    identity, do = id_of(document), document.get("do")
    if not isinstance(do, str) or do not in _KEYS:
        raise InputError(f"there is no request {_shown(do)}", f'"do" is one of {", ".join(_KEYS)}')
    unknown = document.keys() - _KEYS[do] - {"id", "do"}
    if unknown:
        takes = f"it takes {', '.join(sorted(_KEYS[do]))}" if _KEYS[do] else "it takes none"
        raise InputError(f"{do} has no key {_shown(min(unknown))}", takes)
    match do:
        case "chat":
            return _chat(identity, document)
        case "set":
            strength = _strength(document["strength"]) if "strength" in document else None
            return Set(identity, strength, _text(document, "layers") if "layers" in document else None)
        case "load":
            return _load(identity, document)
        case "outputs":
            return Outputs(identity, _column(document.get("column")), _whole(document, "token", None, 0, _MOST_TOKENS))
        case "stop":
            return Stop(identity)
    return Quit(identity)


def _chat(identity: Id, document: dict[str, Any]) -> Chat:
    given = document.get("messages")
    if isinstance(given, dict):
        if "columns" in document:
            raise InputError("messages by column say which columns are meant", "leave columns out")
        messages = {_column(name): read_conversation(each) for name, each in given.items()}
    else:
        named = document.get("columns", ["base"])
        if not isinstance(named, list):
            raise InputError("columns is not a list", f"name some of {', '.join(COLUMNS)}")
        conversation = read_conversation(given)
        messages = {_column(name): conversation for name in named}
    if not messages:
        raise InputError("no column is asked", f"name some of {', '.join(COLUMNS)}")
    temperature = _number(document.get("temperature", 0.0), "temperature")
    if not 0 <= temperature <= 100:
        raise InputError(f"temperature {temperature:g} is out of range", "give 0 (greedy) to 100")
    return Chat(
        identity,
        messages,
        _strength(document.get("strength", 1.0)),
        _text(document, "layers", "all"),
        _whole(document, "seed", 0, 0, 2**32 - 1),
        temperature,
        _whole(document, "max_new_tokens", 128, 1, _MOST_TOKENS),
    )


def _load(identity: Id, document: dict[str, Any]) -> Load:
    match [key for key in ("vector", "irm", "adapter") if key in document]:
        case [("vector" | "adapter") as column]:
            given = document[column]
            sources = given if isinstance(given, list) else [given] if given is not None else []
            return Load(identity, column, tuple(_as_text(each, column) for each in sources))
        case ["irm"]:
            run = document["irm"]
            return Load(identity, "irm", () if run is None else (_as_text(run, "irm"),))
    raise InputError("load takes either a vector, an irm or an adapter", 'send {"do": "load", "irm": "RUN"}, null to have none')


def read_conversation(given: Any) -> tuple[Message, ...]:
    """What is said in a request, of either server: as today's APIs write it. Raises InputError, naming the message."""
    if not isinstance(given, list) or not given:
        raise InputError("messages is not a list of messages", 'send [{"role": "user", "content": "..."}]')
    try:
        messages = read_messages(given, "the request")
    except DataError as error:  # whose hint is about files
        raise InputError(error.what, "role is system, user or assistant, content is text") from None
    for number, each in enumerate(messages, 1):
        if not is_utf8(each["content"]):
            raise InputError(f"the request, message {number}: half a character", "send whole Unicode")
    return tuple(messages)


def _column(name: Any) -> Name:
    for known in COLUMNS:
        if name == known:
            return known
    raise InputError(f"there is no column {_shown(name)}", f"choose one of {', '.join(COLUMNS)}")


def _strength(value: Any) -> float:
    return require_scale(_number(value, "strength"))


def _number(value: Any, name: str) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300 and math.isfinite(value):
        return float(value)
    raise InputError(f"{name} {_shown(value)} is not a finite number", "give one like 0.8")


def _whole(document: dict[str, Any], name: str, default: int | None, least: int, most: int) -> int:
    value = document.get(name, default)
    if isinstance(value, int) and not isinstance(value, bool) and least <= value <= most:
        return value
    raise InputError(f"{name} {_shown(value)} is out of range", f"give a whole number from {least} to {most}")


def _text(document: dict[str, Any], name: str, default: str | None = None) -> str:
    return _as_text(document.get(name, default), name)


def _as_text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise InputError(f"{name} {_shown(value)} is not text", "send text")
    if not is_utf8(value):
        raise InputError(f"{name} holds half a character", "send whole Unicode")
    return value


def _shown(value: Any) -> str:
    try:
        shown = json.dumps(value)
    except RecursionError:  # it was read at a lower depth of calls
        return "what is nested too deeply"
    return shown if len(shown) <= 60 else shown[:59] + "…"
