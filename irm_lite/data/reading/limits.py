"""The most of anything that a dataset may have. 200 to 50,000 samples are usual; more than this would fill the memory."""

from collections.abc import Iterable, Iterator
from typing import Any

from irm_lite.core.errors import DataError

MAX_BYTES = 256 << 20  # of a file; of a Parquet file or a hub dataset also unpacked
MAX_WHOLE = 32 << 20  # bytes of a file that is parsed in one piece: as objects it takes many times that
MAX_SQUAD = 64 << 20  # bytes of a .json that is one object, as SQuAD's are: the largest has 42 MB
MAX_ROWS = 1_000_000  # of a file; where each line is a row, blank lines count
MAX_TEXT = 1 << 20  # characters of a line and of a sample
MAX_COLUMNS = 1000

Rows = Iterator[tuple[str, Any]]  # where a row stands, and the row


def counted(rows: Iterable[tuple[str, Any]], name: object) -> Rows:
    """The rows. Raises DataError once there are too many."""
    for number, row in enumerate(rows, 1):
        if number > MAX_ROWS:
            raise too_many(name)
        yield row


def too_many(name: object) -> DataError:
    return DataError(f"{name} has more than {MAX_ROWS:,} rows", "keep fewer: a few thousand are plenty")
