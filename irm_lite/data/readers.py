"""A dataset's file or name on the hub -> its rows, and in which format they stand there."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from irm_lite.core.errors import DataError
from irm_lite.core.files.reading import open_ordinary
from irm_lite.data.columns import is_known
from irm_lite.data.reading.csv_rows import csv_rows, table_of
from irm_lite.data.reading.hub import hub_rows
from irm_lite.data.reading.json_rows import document_rows, layout_of, line_rows
from irm_lite.data.reading.limits import MAX_BYTES, MAX_ROWS, MAX_SQUAD, MAX_WHOLE, Rows, counted, too_many
from irm_lite.data.reading.parquet_rows import parquet_rows
from irm_lite.data.reading.texts import encoding_of, first_bad_byte, spoken

_SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".txt")


@dataclass(frozen=True)
class Source:
    """Rows, read as they are asked for, and their file's format in words."""

    kind: str
    rows: Rows


def known_formats() -> str:
    return f"a {', '.join(_SUFFIXES[:-1])} or {_SUFFIXES[-1]} file"


def hub_source(name: str, download: bool) -> Source:
    return Source("the hub", counted(hub_rows(name, download), f"hf:{name}"))


def file_source(path: Path) -> Source:
    """Raises DataError where the file cannot be read; its rows do so where one of them cannot."""
    suffix = path.suffix.lower()
    if suffix not in _SUFFIXES:
        raise DataError(f"{path} has a format that irm-lite does not read", f"give {known_formats()}")
    with _named(path):
        with open_ordinary(path) as file:
            size = os.fstat(file.fileno()).st_size
        if size > MAX_BYTES:
            raise DataError(f"{path} is larger than {MAX_BYTES >> 20} MiB", "keep fewer samples: a few thousand are plenty")
        kind, rows = _opened(path, suffix, size)
    return Source(kind, _guarded(path, rows))


def _opened(path: Path, suffix: str, size: int) -> tuple[str, Rows]:
    """The format in words, and the rows."""
    if suffix == ".parquet":
        return "Parquet", parquet_rows(path)
    encoding = encoding_of(path)
    beside = "" if encoding.startswith("utf-8") else f" in {spoken(encoding)}"
    if suffix in (".csv", ".tsv"):
        table = table_of(path, encoding, is_known)
        return table.kind + beside, csv_rows(path, encoding, table)
    if suffix == ".txt":
        _require_at_most(MAX_WHOLE, path, size)
        return "paragraphs" + beside, _text_rows(path, encoding)
    layout = layout_of(path, encoding)
    if layout == "lines":
        return "JSON lines" + beside, line_rows(path, encoding)
    _require_at_most(MAX_SQUAD if layout == "object" else MAX_WHOLE, path, size)
    kind, rows = document_rows(path, encoding)
    return kind + beside, rows


def _require_at_most(most: int, path: Path, size: int) -> None:
    if size > most:
        raise DataError(f"{path} is larger than {most >> 20} MiB", "write it as .jsonl, or keep fewer samples")


def _text_rows(path: Path, encoding: str) -> Rows:
    text = path.read_text(encoding=encoding).removeprefix("\ufeff")
    if text.count("\n\n") > MAX_ROWS:
        raise too_many(path)
    yield from ((f"{path}, paragraph {n}", {"text": each.strip()}) for n, each in enumerate(text.split("\n\n"), 1) if each.strip())


def _guarded(path: Path, rows: Rows) -> Rows:
    with _named(path):
        yield from counted(rows, path)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """What goes wrong with a file as a DataError that names it."""
    try:
        yield
    except FileNotFoundError:
        raise DataError(f"there is no file {path}", "check the path") from None
    except UnicodeError:  # UTF-16 that ends in the middle of a character raises the general one
        encoding = encoding_of(path)
        where = first_bad_byte(path, encoding)
        raise DataError(f"{path} is not {spoken(encoding)} text ({where})", "save it as UTF-8") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or error})", "check the path and its rights") from None
