"""Datasets: the shipped tones and a user's own files -> validated examples, split in three. Imports no torch."""

import codecs
import csv
import hashlib
import json
import os
import re
import reprlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, TextIO

from irm_lite.core.errors import DataError, MissingPart
from irm_lite.core.files.paths import expanded, is_there
from irm_lite.core.files.reading import open_ordinary
from irm_lite.data.parquet_pages import read_footer, require_told_sizes
from irm_lite.data.squad import UNANSWERED, squad_rows

SPLITS = ("train", "validation", "test")
_SUFFIXES = (".jsonl", ".json", ".csv", ".parquet", ".txt")
_PIECE = 1 << 20  # bytes

# The most of anything that a dataset may have. 200 to 50,000 samples are usual; more than this would fill the memory.
_MAX_BYTES = 256 << 20  # of a file; of a Parquet file or a hub dataset also unpacked
_MAX_WHOLE = 32 << 20  # bytes of a file that is parsed in one piece: as objects it takes many times that
_MAX_SQUAD = 64 << 20  # bytes of a .json that is one object, as SQuAD's are: the largest has 42 MB
_MAX_BRACKETS = 2_000_000  # "[" and "{" in such a file, each an object of its own; SQuAD's largest has half a million
_MAX_ROWS = 1_000_000  # in a file of lines the blank ones too
_MAX_TEXT = 1 << 20  # characters of a line and of a sample
_MAX_MESSAGES = 2 * _MAX_ROWS
_MAX_COLUMNS = 1000
_MAX_VALUES = 16_000_000  # of a Parquet file, in all columns
_MAX_NESTED = 4_000_000  # of values beyond a row group's rows: all may be of one row, in a few bytes
_BATCH_BYTES = 16 << 20  # of a Parquet file's rows at a time
_MAX_REFUSED = 100_000

_HUB_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*", re.ASCII)
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


@dataclass(frozen=True)
class Dataset:
    """Examples by split. The split depends on the question alone: all tones of a question fall on the same side."""

    name: str
    train: list[Example]
    validation: list[Example]
    test: list[Example]
    unanswered: int = 0  # questions of a SQuAD file that have no answer: passed over


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
        return _build(spec, _counted(_hub_rows(spec.removeprefix("hf:"), download), spec), answer_column, refused)
    path = expanded(spec)
    if not path.suffix and not is_there(path):
        raise DataError(f"there is no tone or file {spec!r}", f"the tones are {', '.join(tones())}; or give {_known()}")
    return _build(path.stem, _file_rows(path), answer_column, refused)


def load_questions(path: Path) -> list[str]:
    """The prompts in a file: the lines of a .txt, or the questions of a dataset file. Raises DataError where there are none."""
    if path.suffix.lower() == ".txt":
        found = [line.strip() for _, row in _file_rows(path) for line in row["text"].splitlines() if line.strip()]
    else:
        rows = ((where, row) for where, row in _file_rows(path) if row is not UNANSWERED)
        found = [question for where, row in rows if (question := _placed(row, where, "answer")[0].question)]
    if not found:
        raise DataError(f"{path} has no prompts", "give a .txt with one prompt a line, or a dataset with questions")
    return found


def _known() -> str:
    return f"a {', '.join(_SUFFIXES[:-1])} or {_SUFFIXES[-1]} file"


def _file_rows(path: Path) -> Iterator[tuple[str, Any]]:
    """(where, row) for each row of a file."""
    readers = {".jsonl": _jsonl_rows, ".json": _json_rows, ".csv": _csv_rows, ".parquet": _parquet_rows, ".txt": _text_rows}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"{path} has a format that irm-lite does not read", f"give {_known()}")
    try:
        with open_ordinary(path) as file:
            size = os.fstat(file.fileno()).st_size
        if size > _MAX_BYTES:
            raise DataError(f"{path} is larger than {_MAX_BYTES >> 20} MiB", "keep fewer samples: a few thousand are plenty")
        if reader in (_json_rows, _text_rows):
            most = _MAX_SQUAD if reader is _json_rows and _is_object(path) else _MAX_WHOLE
            if size > most:
                raise DataError(f"{path} is larger than {most >> 20} MiB", "write it as .jsonl, or keep fewer samples")
        yield from _counted(reader(path), path)
    except FileNotFoundError:
        raise DataError(f"there is no file {path}", "check the path") from None
    except UnicodeDecodeError:
        raise DataError(f"{path} is not UTF-8 text ({_first_bad_byte(path)})", "save it as UTF-8") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or error})", "check the path and its rights") from None


def _is_object(path: Path) -> bool:
    """Whether a .json holds one object, as SQuAD's do, and no list."""
    with open_ordinary(path) as file:
        return file.read(_PIECE).removeprefix(codecs.BOM_UTF8).lstrip()[:1] == b"{"


def _counted(rows: Iterable[tuple[str, Any]], name: object) -> Iterator[tuple[str, Any]]:
    """The rows, of which there may not be too many."""
    for number, row in enumerate(rows, 1):
        if number > _MAX_ROWS:
            raise _too_many(name)
        yield row


def _too_many(name: object) -> DataError:
    return DataError(f"{name} has more than {_MAX_ROWS:,} rows", "keep fewer: a few thousand are plenty")


def _first_bad_byte(path: Path) -> str:
    """Where the text stops being UTF-8; a reader's own error counts from its buffer."""
    decoder, at = codecs.getincrementaldecoder("utf-8")(), 0
    with open_ordinary(path) as file:
        for piece in iter(lambda: file.read(_PIECE), b""):
            waiting = len(decoder.getstate()[0])
            try:
                decoder.decode(piece)
            except UnicodeDecodeError as error:
                return f"byte {at - waiting + error.start}"
            at += len(piece)
    return "at its end"


def _lines(file: TextIO, path: Path) -> Iterator[str]:
    """The lines, none of which may fill the memory."""
    for number, line in enumerate(iter(lambda: file.readline(_MAX_TEXT + 2), ""), 1):
        if number > _MAX_ROWS + 1:  # CSV has a header
            raise _too_many(path)
        if len(line.rstrip("\r\n")) > _MAX_TEXT:
            raise DataError(f"{path}, line {number}: more than {_MAX_TEXT:,} characters", "shorten or remove it")
        yield line


def _jsonl_rows(path: Path) -> Iterator[tuple[str, Any]]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(_lines(file, path), 1):
            if line.strip():
                where = f"{path}, line {number}"
                yield where, _parse_json(line, where)


def _json_rows(path: Path) -> Iterator[tuple[str, Any]]:
    text = path.read_text(encoding="utf-8-sig")
    if text.count("[") + text.count("{") > _MAX_BRACKETS:
        raise DataError(f"{path} has more than {_MAX_BRACKETS:,} lists and objects", "write it as .jsonl, or keep fewer samples")
    rows = _parse_json(text, str(path), "mend it, or fetch it again if it is cut short")
    if isinstance(rows, dict) and "data" in rows:
        yield from squad_rows(rows, path)
        return
    if not isinstance(rows, list):
        raise DataError(f"{path} is not a list of rows", "write [{...}, {...}], one object a line as .jsonl, or give SQuAD's JSON")
    yield from ((f"{path}, item {number}", row) for number, row in enumerate(rows, 1))


def _parse_json(text: str, where: str, mend: str = "mend or remove it") -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}" if "\n" in text.strip() else f"column {error.colno}"
        raise DataError(f"{where}: not JSON ({error.msg} at {place})", mend) from None
    except RecursionError:
        raise DataError(f"{where}: nested too deeply", mend) from None
    except ValueError as error:  # a number of thousands of digits
        raise DataError(f"{where}: not usable JSON ({error})", mend) from None


def _csv_rows(path: Path) -> Iterator[tuple[str, Any]]:
    csv.field_size_limit(max(csv.field_size_limit(), _MAX_TEXT))  # csv's own is 131072, and there is but one for the process
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(_lines(file, path))
            if len(reader.fieldnames or ()) > _MAX_COLUMNS:
                raise DataError(f"{path} has more than {_MAX_COLUMNS} columns", "keep those that are used")
            for row in reader:
                if None in row:
                    raise DataError(
                        f"{path}, line {reader.line_num}: more fields than the header has", "quote texts that hold commas"
                    )
                yield f"{path}, line {reader.line_num}", row
    except csv.Error as error:
        mend = f"mend the quoting, and shorten texts of more than {_MAX_TEXT:,} characters"
        raise DataError(f"{path}, line {reader.line_num}: {error}", mend) from None


def _parquet_rows(path: Path) -> Iterator[tuple[str, Any]]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise MissingPart("Parquet needs pyarrow", "pip install 'irm-lite[data]'") from None
    number, taken = 0, 0
    try:
        footer = read_footer(path)
        if footer.n_rows > _MAX_ROWS:
            raise _too_many(path)
        if footer.n_columns > _MAX_COLUMNS:
            raise DataError(f"{path} has more than {_MAX_COLUMNS} columns", "keep those that are used")
        told = [chunk.unpacked for chunk in footer.chunks]
        if sum(told) > _MAX_BYTES:
            raise DataError(
                f"{path} unpacks to more than {_MAX_BYTES >> 20} MiB", "keep fewer samples, or the columns that are used"
            )
        if any(chunk.n_values - chunk.n_rows > _MAX_NESTED for chunk in footer.chunks):
            raise DataError(f"{path} has lists of more than {_MAX_NESTED} values in a row group", "write smaller row groups")
        if sum(chunk.n_values for chunk in footer.chunks) > _MAX_VALUES:
            raise DataError(f"{path} has more than {_MAX_VALUES:,} values", "keep fewer samples, or the columns that are used")
        require_told_sizes(path, footer)
        with pyarrow.parquet.ParquetFile(path) as file:
            at_once = max(1, min(1024, _BATCH_BYTES // max([*told, 1])))  # each row may be all that its dictionary holds
            for batch in file.iter_batches(at_once):
                taken += batch.nbytes
                if taken > _MAX_BYTES:
                    raise DataError(f"{path} unpacks to more than {_MAX_BYTES >> 20} MiB", "keep fewer samples")
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path}, row {number}", row
    except DataError:
        raise
    except Exception as error:  # Arrow's many types, and Python's where a value is none that it has
        why = (str(error).splitlines() or [type(error).__name__])[0][:120]
        raise DataError(f"{path} is not a readable Parquet file ({why})", "write it again") from None


def _text_rows(path: Path) -> Iterator[tuple[str, Any]]:
    text = path.read_text(encoding="utf-8-sig")
    if text.count("\n\n") > _MAX_ROWS:
        raise _too_many(path)
    yield from ((f"{path}, paragraph {n}", {"text": each.strip()}) for n, each in enumerate(text.split("\n\n"), 1) if each.strip())


def _hub_rows(name: str, download: bool) -> Iterator[tuple[str, Any]]:
    if not _HUB_NAME.fullmatch(name):
        raise DataError(
            f"hf:{reprlib.repr(name)[1:-1]} names no dataset of the hub", "write hf:owner/name; a file is given without hf:"
        )
    if os.path.lexists(name):  # datasets would take it, and with it any file that its README.md names
        raise DataError(f"hf:{name} is a folder here too", f"rename the folder ./{name}, or give its file")
    try:
        import datasets
        import huggingface_hub.constants
    except ImportError:
        raise MissingPart("Hugging Face datasets need the datasets package", "pip install 'irm-lite[data]'") from None
    # DownloadConfig(local_files_only=True) is read nowhere in datasets 5.2; these two switches are.
    offline = huggingface_hub.constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE
    if not download:
        huggingface_hub.constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True
    shown = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        loaded = datasets.load_dataset(name)
    except Exception as error:  # the library raises many types
        mend = "check the name and the network" if download else "add --download to fetch it from the hub"
        raise DataError(f"the dataset {name} cannot be loaded ({' '.join(str(error).split())[:120]})", mend) from None
    finally:
        huggingface_hub.constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE = offline
        if shown:
            datasets.enable_progress_bars()
    if sum(part.data.nbytes for part in loaded.values()) > _MAX_BYTES:
        raise DataError(f"the dataset {name} holds more than {_MAX_BYTES >> 20} MiB", "write fewer of its samples into a file")
    for split, rows in loaded.items():
        for number, row in enumerate(rows):
            yield f"{name}, {split} row {number}", row if split not in SPLITS else {**row, "split": split}


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
                raise DataError(f"more than {_MAX_REFUSED} rows of {name} cannot be used ({refused[0]})", "mend them") from None
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
            chosen = min({_subject(example) for example in parts[donor]}, key=_digest)
            parts[needy] = [example for example in parts[donor] if _subject(example) == chosen]
            parts[donor] = [example for example in parts[donor] if _subject(example) != chosen]
            if not parts[donor]:
                raise DataError(f"{name} has too few samples to split", "give at least a few dozen")
    return Dataset(name, parts["train"], parts["validation"], parts["test"], unanswered)


def _placed(row: Any, where: str, answer_column: str) -> tuple[Example, str]:
    """The sample in a row, and its split."""
    if not isinstance(row, dict):
        raise DataError(f"{where}: a row must be an object with named fields", "the README says what rows look like")
    example = _example(row, where, answer_column)
    text = "".join((*(message["content"] for message in example.messages), example.text or ""))
    if len(text) > _MAX_TEXT:
        raise DataError(f"{where}: more than {_MAX_TEXT:,} characters", "shorten or remove it")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise DataError(f"{where}: half a character (a lone surrogate) in the text", "mend or remove it") from None
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
            f"{where}: neither question and {answer_column}, nor messages, nor text", "the README says what rows look like"
        )
    return Example((), text, where)


def _messages(messages: Any, where: str) -> tuple[Message, ...]:
    mend = "messages are [{role, content}, ...], the last one the assistant's"
    if isinstance(messages, str):
        messages = _parse_json(messages, where)  # as CSV has to hold it
    if not isinstance(messages, list) or len(messages) < 2:
        raise DataError(f"{where}: messages need a question and an answer at least", mend)
    for message in messages:
        if not isinstance(message, dict) or message.get("role") not in _ROLES or not isinstance(message.get("content"), str):
            raise DataError(f"{where}: a message without role or content", mend)
    if messages[-1]["role"] != "assistant" or not messages[-1]["content"].strip():
        raise DataError(f"{where}: the last message is not an answer of the assistant", mend)
    return tuple({"role": message["role"], "content": message["content"]} for message in messages)


def _subject(example: Example) -> str:
    """What the split goes by: all answers to a question fall on the same side."""
    return (example.question or example.answer).strip()


def _digest(subject: str) -> bytes:
    return hashlib.sha256(subject.encode()).digest()


def _hash_split(example: Example) -> str:
    bucket = _digest(_subject(example))[0] % 10
    return ("validation", "test")[bucket] if bucket < 2 else "train"
