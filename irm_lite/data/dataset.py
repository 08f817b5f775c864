"""Datasets: the shipped tones and a user's own files -> validated examples, split in three. Imports no torch."""

import hashlib
import json
import reprlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from irm_lite.core.errors import DataError
from irm_lite.core.files.paths import expanded, is_there
from irm_lite.data.readers import MAX_ROWS, MAX_TEXT, SPLITS, counted, file_rows, hub_rows, known_formats, parse_json
from irm_lite.data.squad import UNANSWERED

_MAX_MESSAGES = 2 * MAX_ROWS
_MAX_REFUSED = 100_000

_ROLES = ("system", "user", "assistant")

Message = dict[str, str]  # {"role", "content"}


@dataclass(frozen=True)
class Example:
    """One sample: a conversation that ends with the answer to learn, or a plain text. `where` names its row."""

    messages: tuple[Message, ...]
    text: str | None
    where: str

    @property
    def question(self) -> str:
        return self.messages[-2]["content"] if len(self.messages) > 1 else ""

    @property
    def answer(self) -> str:
        return self.messages[-1]["content"] if self.messages else (self.text or "")

    @property
    def subject(self) -> str:
        """What may not stand in two splits: the question, or the text where there is none."""
        return (self.question or self.answer).strip()


@dataclass(frozen=True)
class Dataset:
    """Examples by split. The split depends on the question alone: all tones of a question fall on the same side."""

    name: str
    train: list[Example]
    validation: list[Example]
    test: list[Example]
    unanswered: int = 0  # questions of a SQuAD file that have no answer: skipped


@cache
def _shipped() -> tuple[dict[str, Any], ...]:
    file = resources.files("irm_lite.data.shipped") / "everyday.jsonl"
    return tuple(json.loads(line) for line in file.read_text(encoding="utf-8").splitlines())


def tones() -> tuple[str, ...]:
    """The tones that the shipped data has an answer in."""
    return tuple(sorted(key for key in _shipped()[0] if key not in ("id", "split", "question")))


def load_dataset(
    spec: str, answer_column: str = "answer", download: bool = False, refused: list[DataError] | None = None
) -> Dataset:
    """Read a dataset.

    `spec` is a shipped tone ('anger'), a file (.jsonl, .json, .csv, .parquet, .txt) or a Hugging Face dataset
    ('hf:owner/name'). A row has `question` and `answer` (or `answer_column`), or `messages`, or `text`; an optional
    `split` of train, validation or test; else a tenth each goes to validation and test, by a hash of the question. In
    a .txt file each paragraph is a sample. A .json file is a list of rows, or SQuAD's (squad.py). Raises DataError,
    naming the row, where something cannot be used; with a list `refused`, errors of single rows go there instead.
    """
    if spec in tones():
        rows: Iterable[tuple[str, Any]] = ((f"row {row['id']}", row) for row in _shipped())
        return _build(spec, rows, spec, refused)
    if spec.startswith("hf:"):
        if not spec.removeprefix("hf:").strip():
            raise DataError("hf: names no dataset", "write hf:owner/name")
        return _build(spec, counted(hub_rows(spec.removeprefix("hf:"), download), spec), answer_column, refused)
    path = expanded(spec)
    if not path.suffix and not is_there(path):
        raise DataError(f"there is no tone or file {spec!r}", f"the tones are {', '.join(tones())}; or give {known_formats()}")
    return _build(path.stem, file_rows(path), answer_column, refused)


def load_questions(path: Path) -> list[str]:
    """The prompts in a file: the lines of a .txt, or the questions of a dataset file. Raises DataError where there are none."""
    if path.suffix.lower() == ".txt":
        found = [line.strip() for _, row in file_rows(path) for line in row["text"].splitlines() if line.strip()]
    else:
        rows = ((where, row) for where, row in file_rows(path) if row is not UNANSWERED)
        found = [question for where, row in rows if (question := _placed(row, where, "answer")[0].question)]
    if not found:
        raise DataError(f"{path} has no prompts", "give a .txt with one prompt a line, or a dataset with questions")
    return found


def _build(name: str, rows: Iterable[tuple[str, Any]], answer_column: str, refused: list[DataError] | None) -> Dataset:
    parts: dict[str, list[Example]] = {split: [] for split in SPLITS}
    unanswered = n_messages = 0
    for where, row in rows:
        if row is UNANSWERED:
            unanswered += 1
            continue
        try:
            example, split = _placed(row, where, answer_column)
        except DataError as error:
            if refused is None:
                raise
            refused.append(error)
            if len(refused) > _MAX_REFUSED:
                raise DataError(f"more than {_MAX_REFUSED} rows of {name} cannot be used ({refused[0]})", "fix them") from None
        else:
            parts[split].append(example)
            n_messages += len(example.messages)
            if n_messages > _MAX_MESSAGES:
                raise DataError(f"{name} has more than {_MAX_MESSAGES:,} messages", "keep fewer samples")
    if not any(parts.values()):
        none = f"none of the {unanswered} questions of {name} has an answer" if unanswered else f"{name} has no samples"
        raise refused[0] if refused else DataError(none, "give at least a few dozen")
    # A handful of rows may hash into one split; training and validation must each have something.
    for needy in ("train", "validation"):
        if not parts[needy]:
            donor = max(parts, key=lambda split: len(parts[split]))
            chosen = min({example.subject for example in parts[donor]}, key=_digest)
            parts[needy] = [example for example in parts[donor] if example.subject == chosen]
            parts[donor] = [example for example in parts[donor] if example.subject != chosen]
            if not parts[donor]:
                raise DataError(f"{name} has too few samples to split", "give at least a few dozen")
    return Dataset(name, parts["train"], parts["validation"], parts["test"], unanswered)


def _placed(row: Any, where: str, answer_column: str) -> tuple[Example, str]:
    """The sample in a row, and its split. Raises DataError, naming the row by `where`."""
    if not isinstance(row, dict):
        raise DataError(f"{where}: a row must be an object with named fields", "docs/guide.md says what rows look like")
    example = _example(row, where, answer_column)
    text = "".join((*(message["content"] for message in example.messages), example.text or ""))
    if len(text) > MAX_TEXT:
        raise DataError(f"{where}: more than {MAX_TEXT:,} characters", "shorten or remove it")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise DataError(f"{where}: half a character (a lone surrogate) in the text", "fix or remove it") from None
    split = row.get("split") or _hash_split(example)
    if not isinstance(split, str) or split not in SPLITS:
        raise DataError(f"{where}: unknown split {reprlib.repr(split)}", f"use {', '.join(SPLITS)}")
    return example, split


def _example(row: dict[str, Any], where: str, answer_column: str) -> Example:
    if "messages" in row:
        return Example(_messages(row["messages"], where), None, where)
    if "question" in row:
        question, answer = row["question"], row.get(answer_column)
        if not isinstance(question, str) or not question.strip():
            raise DataError(f"{where}: the question is empty", "fill it in or remove the row")
        if answer is not None and not isinstance(answer, str):
            raise DataError(f"{where}: {answer_column!r} must be text, not {reprlib.repr(answer)}", "put it in quotes")
        if not isinstance(answer, str) or not answer.strip():
            raise DataError(
                f"{where}: no {answer_column!r} to the question {question.strip()[:40]!r}", "fill it in or remove the row"
            )
        return Example(({"role": "user", "content": question}, {"role": "assistant", "content": answer}), None, where)
    text = row.get("text")
    if not isinstance(text, str) or not text.strip():
        raise DataError(
            f"{where}: neither question and {answer_column}, nor messages, nor text", "docs/guide.md says what rows look like"
        )
    return Example((), text, where)


def _messages(messages: Any, where: str) -> tuple[Message, ...]:
    hint = "messages are [{role, content}, ...], the last one the assistant's"
    if isinstance(messages, str):
        messages = parse_json(messages, where)  # as CSV has to hold it
    if not isinstance(messages, list) or len(messages) < 2:
        raise DataError(f"{where}: messages need a question and an answer at least", hint)
    for message in messages:
        if not isinstance(message, dict) or message.get("role") not in _ROLES or not isinstance(message.get("content"), str):
            raise DataError(f"{where}: a message without role or content", hint)
    if messages[-1]["role"] != "assistant" or not messages[-1]["content"].strip():
        raise DataError(f"{where}: the last message is not an answer of the assistant", hint)
    return tuple({"role": message["role"], "content": message["content"]} for message in messages)


def _digest(subject: str) -> bytes:
    return hashlib.sha256(subject.encode()).digest()


def _hash_split(example: Example) -> str:
    bucket = _digest(example.subject)[0] % 10
    return ("validation", "test")[bucket] if bucket < 2 else "train"
