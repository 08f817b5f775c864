"""What a Parquet file takes in memory is read from its own footer and pages, as Arrow tells it of sound files."""

from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from irm_lite.core.errors import DataError
from irm_lite.data.dataset import load_dataset
from irm_lite.data.reading.parquet_pages import read_footer, require_declared_sizes

ROWS = [{"question": f"Why {n % 7}?", "answer": f"So {n}.", "messages": [{"role": "user"}] * (n % 3)} for n in range(5000)]
WAYS: list[dict[str, Any]] = [
    {},
    {"compression": "gzip", "data_page_version": "2.0"},
    {"compression": "none", "use_dictionary": False, "row_group_size": 700, "data_page_size": 512},
    {"write_page_index": True, "write_page_checksum": True},
]


def written(path: Path, rows: list[dict[str, Any]], **options: Any) -> Path:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path, **options)
    return path


@pytest.mark.parametrize("options", WAYS)
def test_a_sound_files_footer_is_what_arrow_says(tmp_path: Path, options: dict[str, Any]) -> None:
    path = written(tmp_path / "a.parquet", ROWS, **options)
    found, about = read_footer(path), pyarrow.parquet.read_metadata(path)
    groups = [about.row_group(n) for n in range(about.num_row_groups)]
    columns = [(group.num_rows, group.column(n)) for group in groups for n in range(group.num_columns)]
    assert (found.n_rows, found.n_columns) == (5000, about.num_columns)
    assert [(chunk.unpacked, chunk.n_values, chunk.n_rows) for chunk in found.chunks] == [
        (column.total_uncompressed_size, column.num_values, n_rows) for n_rows, column in columns
    ]
    assert [chunk.end - chunk.start for chunk in found.chunks] == [column.total_compressed_size for _, column in columns]
    require_declared_sizes(path, found)


def test_pages_that_hold_more_than_the_footer_says_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "a.parquet", [{"text": "a" * 1_000_000}] * 3, compression="gzip", use_dictionary=False)
    footer = read_footer(path)
    (chunk,) = footer.chunks
    for less in (chunk._replace(unpacked=chunk.unpacked - 1), chunk._replace(n_values=2)):
        footer.chunks[:] = [less]
        with pytest.raises(ValueError, match="unpack to more than it says"):
            require_declared_sizes(path, footer)


def test_a_list_of_millions_in_a_few_bytes_is_refused(tmp_path: Path) -> None:
    table = pyarrow.table({"messages": pyarrow.array([[None] * 5_000_000], pyarrow.list_(pyarrow.string()))})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet", data_page_size=1 << 30, write_batch_size=1 << 30)
    assert (tmp_path / "a.parquet").stat().st_size < 1000
    with pytest.raises(DataError, match="lists of more than 4000000 values in a row group: write smaller row groups"):
        load_dataset(str(tmp_path / "a.parquet"))


def test_a_column_in_another_file_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "a.parquet", ROWS)
    about = pyarrow.parquet.read_metadata(path)
    about.set_file_path("../../other.parquet")
    about.write_metadata_file(tmp_path / "b.parquet")
    with pytest.raises(DataError, match="a column lies in another file"):
        load_dataset(str(tmp_path / "b.parquet"))


@pytest.mark.parametrize("size", [100, 2000])
def test_a_page_header_with_a_long_value_in_its_statistics_is_read_whole(tmp_path: Path, size: int) -> None:
    path = written(tmp_path / "a.parquet", [{"text": "a" * size}, {"text": "b" * size}], use_dictionary=False, compression="none")
    assert path.read_bytes().count(b"a" * size) == 3, "once as data, twice in statistics"
    require_declared_sizes(path, read_footer(path))
    assert len(load_dataset(str(path)).train) == 1


@pytest.mark.parametrize("length", [0, 1, 11, 12, 13, 600])
def test_a_file_cut_short_is_refused(tmp_path: Path, length: int) -> None:
    whole = written(tmp_path / "a.parquet", ROWS).read_bytes()
    (tmp_path / "a.parquet").write_bytes(whole[:length] + whole[-8:] * (length > 12))
    with pytest.raises(ValueError, match="."):
        read_footer(tmp_path / "a.parquet")
