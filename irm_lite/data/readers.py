"""Rows of dataset files in each format, and of the hub's data sets, within limits on their size."""

import codecs
import csv
import json
import os
import reprlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

from irm_lite.core.errors import DataError, MissingPart, reason
from irm_lite.core.files.paths import is_hub_id
from irm_lite.core.files.reading import open_ordinary
from irm_lite.data.parquet_pages import read_footer, require_declared_sizes
from irm_lite.data.squad import squad_rows

SPLITS = ("train", "validation", "test")
_SUFFIXES = (".jsonl", ".json", ".csv", ".parquet", ".txt")
_PIECE = 1 << 20  # bytes

# The most of anything that a dataset may have. 200 to 50,000 samples are usual; more than this would fill the memory.
_MAX_BYTES = 256 << 20  # of a file; of a Parquet file or a hub dataset also unpacked
_MAX_WHOLE = 32 << 20  # bytes of a file that is parsed in one piece: as objects it takes many times that
_MAX_SQUAD = 64 << 20  # bytes of a .json that is one object, as SQuAD's are: the largest has 42 MB
_MAX_BRACKETS = 2_000_000  # "[" and "{" in such a file, each an object of its own; SQuAD's largest has half a million
MAX_ROWS = 1_000_000  # of a file; where each line is a row, blank lines count
MAX_TEXT = 1 << 20  # characters of a line and of a sample
_MAX_COLUMNS = 1000
_MAX_VALUES = 16_000_000  # of a Parquet file, in all columns
_MAX_NESTED = 4_000_000  # values of a row group beyond one a row: all may belong to one row, in a few bytes
_BATCH_BYTES = 16 << 20  # of a Parquet file's rows at a time


def known_formats() -> str:
    return f"a {', '.join(_SUFFIXES[:-1])} or {_SUFFIXES[-1]} file"


def file_rows(path: Path) -> Iterator[tuple[str, Any]]:
    """(where, row) for each row of a file."""
    readers = {".jsonl": _jsonl_rows, ".json": _json_rows, ".csv": _csv_rows, ".parquet": _parquet_rows, ".txt": _text_rows}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"{path} has a format that irm-lite does not read", f"give {known_formats()}")
    try:
        with open_ordinary(path) as file:
            size = os.fstat(file.fileno()).st_size
        if size > _MAX_BYTES:
            raise DataError(f"{path} is larger than {_MAX_BYTES >> 20} MiB", "keep fewer samples: a few thousand are plenty")
        if reader in (_json_rows, _text_rows):
            most = _MAX_SQUAD if reader is _json_rows and _is_object(path) else _MAX_WHOLE
            if size > most:
                raise DataError(f"{path} is larger than {most >> 20} MiB", "write it as .jsonl, or keep fewer samples")
        yield from counted(reader(path), path)
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


def counted(rows: Iterable[tuple[str, Any]], name: object) -> Iterator[tuple[str, Any]]:
    """The rows. Raises DataError once there are too many."""
    for number, row in enumerate(rows, 1):
        if number > MAX_ROWS:
            raise _too_many(name)
        yield row


def _too_many(name: object) -> DataError:
    return DataError(f"{name} has more than {MAX_ROWS:,} rows", "keep fewer: a few thousand are plenty")


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
    """The lines. Raises DataError at one that is too long to be held, and once there are too many."""
    for number, line in enumerate(iter(lambda: file.readline(MAX_TEXT + 2), ""), 1):
        if number > MAX_ROWS + 1:  # CSV has a header
            raise _too_many(path)
        if len(line.rstrip("\r\n")) > MAX_TEXT:
            raise DataError(f"{path}, line {number}: more than {MAX_TEXT:,} characters", "shorten or remove it")
        yield line


def _jsonl_rows(path: Path) -> Iterator[tuple[str, Any]]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(_lines(file, path), 1):
            if line.strip():
                where = f"{path}, line {number}"
                yield where, parse_json(line, where)


def _json_rows(path: Path) -> Iterator[tuple[str, Any]]:
    text = path.read_text(encoding="utf-8-sig")
    if text.count("[") + text.count("{") > _MAX_BRACKETS:
        raise DataError(f"{path} has more than {_MAX_BRACKETS:,} lists and objects", "write it as .jsonl, or keep fewer samples")
    rows = parse_json(text, str(path), "fix it, or fetch it again if it is cut short")
    if isinstance(rows, dict) and "data" in rows:
        yield from squad_rows(rows, path)
        return
    if not isinstance(rows, list):
        raise DataError(f"{path} is not a list of rows", "write [{...}, {...}], one object a line as .jsonl, or give SQuAD's JSON")
    yield from ((f"{path}, item {number}", row) for number, row in enumerate(rows, 1))


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


def _csv_rows(path: Path) -> Iterator[tuple[str, Any]]:
    csv.field_size_limit(max(csv.field_size_limit(), MAX_TEXT))  # csv's own is 131072; one limit for the whole process
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
        hint = f"fix the quoting, and shorten texts of more than {MAX_TEXT:,} characters"
        raise DataError(f"{path}, line {reader.line_num}: {error}", hint) from None


def _parquet_rows(path: Path) -> Iterator[tuple[str, Any]]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise MissingPart("Parquet needs pyarrow", "pip install 'irm-lite[data]'") from None
    number, taken = 0, 0
    try:
        footer = read_footer(path)
        if footer.n_rows > MAX_ROWS:
            raise _too_many(path)
        if footer.n_columns > _MAX_COLUMNS:
            raise DataError(f"{path} has more than {_MAX_COLUMNS} columns", "keep those that are used")
        declared = [chunk.unpacked for chunk in footer.chunks]
        if sum(declared) > _MAX_BYTES:
            raise DataError(
                f"{path} unpacks to more than {_MAX_BYTES >> 20} MiB", "keep fewer samples, or the columns that are used"
            )
        if any(chunk.n_values - chunk.n_rows > _MAX_NESTED for chunk in footer.chunks):
            raise DataError(f"{path} has lists of more than {_MAX_NESTED} values in a row group", "write smaller row groups")
        if sum(chunk.n_values for chunk in footer.chunks) > _MAX_VALUES:
            raise DataError(f"{path} has more than {_MAX_VALUES:,} values", "keep fewer samples, or the columns that are used")
        require_declared_sizes(path, footer)
        with pyarrow.parquet.ParquetFile(path) as file:
            at_once = max(1, min(1024, _BATCH_BYTES // max([*declared, 1])))  # each row may be all that its dictionary holds
            for batch in file.iter_batches(at_once):
                taken += batch.nbytes
                if taken > _MAX_BYTES:
                    raise DataError(f"{path} unpacks to more than {_MAX_BYTES >> 20} MiB", "keep fewer samples")
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path}, row {number}", row
    except DataError:
        raise
    except Exception as error:  # Arrow raises many types, and Python its own where it cannot hold a value
        why = (str(error).splitlines() or [type(error).__name__])[0][:120]
        raise DataError(f"{path} is not a readable Parquet file ({why})", "write it again") from None


def _text_rows(path: Path) -> Iterator[tuple[str, Any]]:
    text = path.read_text(encoding="utf-8-sig")
    if text.count("\n\n") > MAX_ROWS:
        raise _too_many(path)
    yield from ((f"{path}, paragraph {n}", {"text": each.strip()}) for n, each in enumerate(text.split("\n\n"), 1) if each.strip())


def hub_rows(name: str, download: bool) -> Iterator[tuple[str, Any]]:
    if not is_hub_id(name):
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
        hint = "check the name and the network" if download else "add --download to fetch it from the hub"
        raise DataError(f"the dataset {name} cannot be loaded ({reason(error, 120)})", hint) from None
    finally:
        huggingface_hub.constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE = offline
        if shown:
            datasets.enable_progress_bars()
    if sum(part.data.nbytes for part in loaded.values()) > _MAX_BYTES:
        raise DataError(f"the dataset {name} holds more than {_MAX_BYTES >> 20} MiB", "write fewer of its samples into a file")
    for split, rows in loaded.items():
        for number, row in enumerate(rows):
            yield f"{name}, {split} row {number}", row if split not in SPLITS else {**row, "split": split}
