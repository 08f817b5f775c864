"""Rows of tables in text: CSV, with commas, semicolons or tabs. Its quotes must fit together: a stray one swallows rows."""

import csv
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from irm_lite.core.errors import DataError
from irm_lite.core.visible_text import short
from irm_lite.data.reading.limits import MAX_COLUMNS, MAX_TEXT, Rows
from irm_lite.data.reading.texts import head_of, lines

if TYPE_CHECKING:
    from _csv import Reader

_NAMES = {",": "CSV", ";": "CSV with semicolons", "\t": "CSV with tabs", "|": "CSV with bars"}
_SEP = re.compile(r'"?sep=(.)"?')  # a first line by which a spreadsheet is told what the others are separated by
_QUOTES = 'write a quote inside a text as two (""), with the text in quotes'


@dataclass(frozen=True)
class Table:
    """What a file's fields are separated by, and whether its first line only says so."""

    delimiter: str
    skip: bool

    @property
    def kind(self) -> str:
        return _NAMES.get(self.delimiter, f"CSV with {self.delimiter!r}")


def table_of(path: Path, encoding: str, is_known: Callable[[str], bool]) -> Table:
    """By the header alone: what cuts it so that a column of a known name comes out; else a comma, or a tab in a .tsv."""
    header = re.split(r"\r\n|\r|\n", head_of(path, encoding, newline=""), maxsplit=1)[0]
    if said := _SEP.fullmatch(header):
        return Table(said[1], skip=True)
    usual = "\t" if path.suffix.lower() == ".tsv" else ","
    for delimiter in (usual, *_NAMES):
        if any(map(is_known, next(csv.reader([header], delimiter=delimiter), []))):
            return Table(delimiter, skip=False)
    return Table(usual, skip=False)


def csv_rows(path: Path, encoding: str, table: Table) -> Rows:
    csv.field_size_limit(max(csv.field_size_limit(), MAX_TEXT))  # csv's own is 131072; one limit for the whole process
    with path.open(encoding=encoding, newline="") as file:
        text = lines(file, path)
        skipped = 1 if table.skip and next(text, None) else 0
        rows = _records(csv.reader(text, delimiter=table.delimiter, strict=True), path, skipped)
        _, header = next(rows, ("", []))
        if len(header) > MAX_COLUMNS:
            raise DataError(f"{path} has more than {MAX_COLUMNS} columns", "keep those that are used")
        twice = _twice(header)
        for where, fields in rows:
            if any(field.strip() for field in fields[len(header) :]):
                hint = "quote texts that hold commas" if table.delimiter == "," else f"quote texts that hold {table.delimiter!r}"
                raise DataError(f"{where}: more fields than the header has", hint)
            for name, places in twice.items():
                if len({fields[place] for place in places if place < len(fields)}) > 1:
                    alike = f"{len(places)} columns are called {short(name, 24)!r}, and differ"
                    raise DataError(f"{where}: {alike}", "rename all but one")
            if any(field.strip() for field in fields):
                yield where, dict(zip(header, [*fields, *[None] * len(header)], strict=False))


def _twice(header: list[str]) -> dict[str, list[int]]:
    """Names that several columns have, with their places: which one is meant cannot be known."""
    counts = Counter(name for name in header if name.strip())
    return {name: [place for place, each in enumerate(header) if each == name] for name, count in counts.items() if count > 1}


def _records(reader: "Reader", path: Path, skipped: int) -> Iterator[tuple[str, list[str]]]:
    """(where it begins, fields) of each line with fields. One whose quotes do not fit together is named by its first line: the last
    one lies as far away as the next quote."""
    while True:
        first = skipped + reader.line_num + 1
        where = f"{path}, line {first}"
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if "unexpected end of data" in str(error):
                raise DataError(f"{where}: a quote opens here and is never closed", f"close or remove it; {_QUOTES}") from None
            if "field limit" in str(error):
                hint = f"fix the quoting, and shorten texts of more than {MAX_TEXT:,} characters"
                raise DataError(f"{where}: {error}", hint) from None
            last = skipped + reader.line_num
            upto = f", as far as line {last}" if last > first else ""
            raise DataError(f"{where}: the quotes do not fit together{upto} ({error})", _QUOTES) from None
        if fields:
            yield where, fields
