"""Rows of JSON files: a list, an object as SQuAD's are, or an object a line, whatever the file is called."""

import json
from pathlib import Path
from typing import Any, Literal

from irm_lite.core.errors import DataError
from irm_lite.data.columns import is_known
from irm_lite.data.reading.limits import MAX_TEXT, Rows
from irm_lite.data.reading.squad import squad_rows
from irm_lite.data.reading.texts import head_of, lines
from irm_lite.data.splits import SPLITS

_MAX_BRACKETS = 2_000_000  # "[" and "{" in such a file, each an object of its own; SQuAD's largest has half a million

Layout = Literal["lines", "list", "object"]


def layout_of(path: Path, encoding: str) -> Layout:
    """How a .json or .jsonl file is laid out, by its beginning."""
    head = head_of(path, encoding).lstrip("\ufeff \t\n")
    first, _, more = head.partition("\n")
    if more.strip() and _is_whole(first):
        return "lines"
    if head.startswith("["):
        return "list"
    return "lines" if path.suffix.lower() == ".jsonl" else "object"


def _is_whole(line: str) -> bool:
    """Whether a line holds a list or an object from its beginning to its end."""
    if line.rstrip()[-1:] not in ("}", "]"):
        return False
    try:
        return isinstance(json.loads(line), list | dict)
    except (ValueError, RecursionError):
        return False


def line_rows(path: Path, encoding: str) -> Rows:
    with path.open(encoding=encoding) as file:
        for number, line in enumerate(lines(file, path), 1):
            text = line.strip("\ufeff \t\r\n")  # files that were put together keep each one's byte order mark
            if text:
                where = f"{path}, line {number}"
                hint = "write each row on one line, or a list of them" if text in ("{", "[") else "fix or remove it"
                yield where, parse_json(text, where, hint)


def document_rows(path: Path, encoding: str) -> tuple[str, Rows]:
    """What a file that is parsed as a whole holds, in words, and its rows."""
    text = path.read_text(encoding=encoding).removeprefix("\ufeff")
    if text.count("[") + text.count("{") > _MAX_BRACKETS:
        raise DataError(f"{path} has more than {_MAX_BRACKETS:,} lists and objects", "write it as .jsonl, or keep fewer samples")
    rows = parse_json(text, str(path), "fix it, or fetch it again if it is cut short")
    if isinstance(rows, dict) and rows and all(name in SPLITS and isinstance(part, list) for name, part in rows.items()):
        return "a JSON list for each split", _of_splits(rows, path)
    if isinstance(rows, dict) and "data" in rows:
        if not _are_rows(rows["data"]):
            return "SQuAD's JSON", squad_rows(rows, path)
        rows = rows["data"]
    if not isinstance(rows, list):
        hint = 'write [{...}, {...}], as pandas does with orient="records", one object a line as .jsonl, or give SQuAD\'s JSON'
        raise DataError(f"{path} is not a list of rows", hint)
    return "a JSON list", ((f"{path}, item {number}", row) for number, row in enumerate(rows, 1))


def _of_splits(parts: dict[str, list[Any]], path: Path) -> Rows:
    for split, rows in parts.items():
        for number, row in enumerate(rows, 1):
            yield f"{path}, {split} item {number}", {**row, "split": split} if isinstance(row, dict) else row


def _are_rows(data: Any) -> bool:
    """Whether a list holds rows, and no articles of SQuAD's."""
    first = data[0] if isinstance(data, list) and data else None
    return isinstance(first, dict) and "paragraphs" not in first and any(map(is_known, first))


def parse_json(text: str, where: str, hint: str = "fix or remove it") -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}" if "\n" in text.strip() else f"column {error.colno}"
        raise DataError(f"{where}: not JSON ({error.msg} at {place})", hint) from None
    except RecursionError:
        raise DataError(f"{where}: nested too deeply", hint) from None
    except ValueError as error:  # a number of thousands of digits
        raise DataError(f"{where}: not usable JSON ({error})", hint) from None


def messages_in(text: str) -> list[Any] | None:
    """The messages that a text of usual length holds as JSON, as tables have to hold them; None where it is a text."""
    if len(text) > MAX_TEXT or text.lstrip()[:1] != "[":
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    spoken = isinstance(found, list) and all(isinstance(each, dict) and ("role" in each or "from" in each) for each in found)
    return found if found and spoken else None
