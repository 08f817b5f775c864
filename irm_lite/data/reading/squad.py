"""SQuAD's JSON, versions 1.1 and 2.0: articles -> paragraphs -> questions. The context is not used: the IRM answers without it."""

from collections.abc import Iterator
from typing import Any

from irm_lite.core.errors import DataError

UNANSWERED = object()  # stands for a question that has no answer at all: skipped and counted
_HINT = "SQuAD's files are data -> paragraphs -> qas"


def squad_rows(document: dict[str, Any], path: object) -> Iterator[tuple[str, Any]]:
    """(where, row) for each question; a row is {"question", "answer"}, or UNANSWERED.

    The answer is the first of `answers`, or of `plausible_answers` where the question is impossible, as in the paper.
    Raises DataError, naming article, paragraph and question, where something has the wrong type.
    """
    for a, article in enumerate(_items(document, "data", str(path)), 1):
        of_article = f"{path}, article {a}"
        for p, paragraph in enumerate(_items(article, "paragraphs", of_article), 1):
            of_paragraph = f"{of_article}, paragraph {p}"
            for q, question in enumerate(_items(paragraph, "qas", of_paragraph), 1):
                where = f"{of_paragraph}, question {q}"
                yield where, _row(question, where)


def _row(question: dict[str, Any], where: str) -> Any:
    found = _items(question, "answers", where, needed=False) or _items(question, "plausible_answers", where, needed=False)
    if not found:
        return UNANSWERED
    if not isinstance(found[0].get("text"), str):
        raise DataError(f"{where}: the answer has no text", _HINT)
    return {"question": question.get("question"), "answer": found[0]["text"]}


def _items(holder: dict[str, Any], key: str, where: str, needed: bool = True) -> list[dict[str, Any]]:
    """The objects in a list of the file."""
    items = holder.get(key, None if needed else [])
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise DataError(f"{where}: {key!r} is not a list of objects", _HINT)
    return items
