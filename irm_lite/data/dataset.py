"""Datasets: the shipped tones and a user's own files -> validated examples, split in three. Imports no torch."""

import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from irm_lite.core.errors import DataError
from irm_lite.core.files.paths import expanded, is_there
from irm_lite.core.visible_text import short
from irm_lite.data.example import Example, Message
from irm_lite.data.forms import placed
from irm_lite.data.readers import Source, file_source, hub_source, known_formats
from irm_lite.data.reading.limits import MAX_ROWS
from irm_lite.data.reading.squad import UNANSWERED
from irm_lite.data.splits import divide

__all__ = ["SHIPPED", "Dataset", "Example", "Message", "Reading", "load_dataset", "load_questions", "public_name", "tones"]

SHIPPED = "shipped"  # the file format of the tones
_MAX_MESSAGES = 2 * MAX_ROWS
_MAX_REFUSED = 100_000
_MAX_UNREAD = 20  # names of columns


def public_name(spec: str) -> str:
    """A dataset's name for files that are given away: a tone, hf:owner/name, or a file's name without its folders."""
    return spec if spec in tones() or spec.startswith("hf:") else Path(spec.replace("\\", "/")).name


@dataclass(frozen=True)
class Reading:
    """How a dataset was read: its file's format, how many rows had each form, how many conversations differ before the answer, the
    columns that were not read, and in words where the split is not what the file says."""

    file: str = ""
    forms: dict[str, int] = field(default_factory=dict)
    conversations: int = 0
    unread: tuple[str, ...] = ()
    split_note: str = ""

    def __str__(self) -> str:
        forms = list(self.forms) if len(self.forms) == 1 else [f"{count} rows of {form}" for form, count in self.forms.items()]
        return ", ".join([*forms, self.file])

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "unread": list(self.unread)}  # as it is read back from JSON


@dataclass(frozen=True)
class Dataset:
    """Examples by split. The split depends on the question alone (splits.py): all tones of a question fall on the same side."""

    name: str
    train: list[Example]
    validation: list[Example]
    test: list[Example]
    unanswered: int = 0  # questions of a SQuAD file that have no answer: skipped
    reading: Reading = Reading()


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

    `spec` is a shipped tone ('anger'), a file (.jsonl, .json, .csv, .tsv, .parquet, .txt) or a Hugging Face dataset
    ('hf:owner/name'). The forms that a row may have are forms.py's: `question` and `answer` (or `answer_column`), `messages`,
    ShareGPT's, Alpaca's ..., or `text`; with an optional `split` of train, validation or test, else a tenth each goes to
    validation and test, by a hash of the question. In a .txt file each paragraph is a sample. A .json file is a list of rows,
    an object a line, or SQuAD's. Raises DataError, naming the row, where something cannot be used; with a list `refused`,
    errors of single rows go there instead.
    """
    if spec in tones():
        return _build(spec, Source(SHIPPED, ((f"row {row['id']}", row) for row in _shipped())), spec, refused)
    if spec.startswith("hf:"):
        if not spec.removeprefix("hf:").strip():
            raise DataError("hf: names no dataset", "write hf:owner/name")
        return _build(spec, hub_source(spec.removeprefix("hf:"), download), answer_column, refused)
    path = expanded(spec)
    if not path.suffix and not is_there(path):
        raise DataError(f"there is no tone or file {spec!r}", f"the tones are {', '.join(tones())}; or give {known_formats()}")
    return _build(path.stem, file_source(path), answer_column, refused)


def load_questions(path: Path) -> list[str]:
    """The prompts in a file: the lines of a .txt, or the questions of a dataset file. Raises DataError where there are none."""
    rows = file_source(path).rows
    if path.suffix.lower() == ".txt":
        found = [line.strip() for _, row in rows for line in row["text"].splitlines() if line.strip()]
    else:
        answered = ((where, row) for where, row in rows if row is not UNANSWERED)
        found = [question for where, row in answered if (question := placed(row, where, "answer").example.question)]
    if not found:
        raise DataError(f"{path} has no prompts", "give a .txt with one prompt a line, or a dataset with questions")
    return found


def _build(name: str, source: Source, answer_column: str, refused: list[DataError] | None) -> Dataset:
    examples: list[Example] = []
    declared: list[str | None] = []
    forms: Counter[str] = Counter()
    unanswered = n_messages = 0
    unread: dict[str, None] = {}
    for where, row in source.rows:
        if row is UNANSWERED:
            unanswered += 1
            continue
        try:
            found = placed(row, where, answer_column)
        except DataError as error:
            if refused is None:
                raise
            refused.append(error)
            if len(refused) > _MAX_REFUSED:
                raise DataError(f"more than {_MAX_REFUSED} rows of {name} cannot be used ({refused[0]})", "fix them") from None
            continue
        examples.append(found.example)
        declared.append(found.split)
        forms[found.form] += 1
        if len(unread) < _MAX_UNREAD:
            unread |= dict.fromkeys(short(name, 40) for name in found.unread)
        n_messages += len(found.example.messages)
        if n_messages > _MAX_MESSAGES:
            raise DataError(f"{name} has more than {_MAX_MESSAGES:,} messages", "keep fewer samples")
    if not examples:
        none = f"none of the {unanswered} questions of {name} has an answer" if unanswered else f"{name} has no samples"
        raise refused[0] if refused else DataError(none, "give at least a few dozen")
    division = divide(examples, declared)
    parts = division.parts
    if not parts["train"] or not parts["validation"]:
        raise _nothing_to_divide(name, examples, unanswered, refused or [])
    reading = Reading(source.kind, dict(forms), division.conversations, tuple(unread)[:_MAX_UNREAD], division.note)
    return Dataset(name, parts["train"], parts["validation"], parts["test"], unanswered, reading)


def _nothing_to_divide(name: str, examples: list[Example], unanswered: int, refused: list[DataError]) -> DataError:
    """Why there is nothing to validate on."""
    count, first = len(examples), examples[0]
    told = "the conversation before the answer is the same in all" if first.messages else "all the same text"
    counts = ["1 sample" if count == 1 else f"{count} samples, {told}: {first.subject[:40]!r}"]
    if unanswered:
        counts.append(f"{unanswered} questions have no answer")
    if refused:
        counts.append(f"{len(refused)} rows cannot be used, the first: {refused[0]}")
    hint = "give at least a few dozen" + (" that differ before the answer, or a column split" if count > 1 else "")
    return DataError(f"{name} has too few samples to split ({'; '.join(counts)})", hint)
