"""Rows of a Parquet file. What it would take unpacked is known before Arrow sees it (parquet_pages.py)."""

from pathlib import Path

from irm_lite.core.errors import DataError, MissingPart
from irm_lite.data.reading.limits import MAX_BYTES, MAX_COLUMNS, MAX_ROWS, Rows, too_many
from irm_lite.data.reading.parquet_pages import read_footer, require_declared_sizes

_MAX_VALUES = 16_000_000  # in all columns
_MAX_NESTED = 4_000_000  # values of a row group beyond one a row: all may belong to one row, in a few bytes
_BATCH_BYTES = 16 << 20  # of rows at a time


def parquet_rows(path: Path) -> Rows:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise MissingPart("Parquet needs pyarrow", "pip install 'irm-lite[data]'") from None
    number, taken = 0, 0
    try:
        footer = read_footer(path)
        if footer.n_rows > MAX_ROWS:
            raise too_many(path)
        if footer.n_columns > MAX_COLUMNS:
            raise DataError(f"{path} has more than {MAX_COLUMNS} columns", "keep those that are used")
        declared = [chunk.unpacked for chunk in footer.chunks]
        if sum(declared) > MAX_BYTES:
            raise DataError(
                f"{path} unpacks to more than {MAX_BYTES >> 20} MiB", "keep fewer samples, or the columns that are used"
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
                if taken > MAX_BYTES:
                    raise DataError(f"{path} unpacks to more than {MAX_BYTES >> 20} MiB", "keep fewer samples")
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path}, row {number}", row
    except DataError:
        raise
    except Exception as error:  # Arrow raises many types, and Python its own where it cannot hold a value
        why = (str(error).splitlines() or [type(error).__name__])[0][:120]
        raise DataError(f"{path} is not a readable Parquet file ({why})", "write it again") from None
