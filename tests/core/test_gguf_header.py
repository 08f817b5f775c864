"""GGUF headers against the gguf package's own reader, and against files damaged in every way."""

import os
import struct
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irm_lite.core.errors import InputError
from irm_lite.core.files import gguf_header
from irm_lite.core.files.gguf_header import ArrayInfo, GgufHeader, read_header
from support.gguf_files import write_gguf

quick = settings(deadline=None, max_examples=60)

ADD_SCALAR = {
    "uint8": st.integers(0, 2**8 - 1),
    "int8": st.integers(-(2**7), 2**7 - 1),
    "uint16": st.integers(0, 2**16 - 1),
    "int16": st.integers(-(2**15), 2**15 - 1),
    "uint32": st.integers(0, 2**32 - 1),
    "int32": st.integers(-(2**31), 2**31 - 1),
    "uint64": st.integers(0, 2**64 - 1),
    "int64": st.integers(-(2**63), 2**63 - 1),
    "float32": st.floats(width=32, allow_nan=False),
    "float64": st.floats(allow_nan=False),
    "bool": st.booleans(),
    "string": st.text(min_size=1, max_size=20),
    "array": st.one_of(st.lists(st.text(max_size=5), min_size=1, max_size=4), st.lists(st.integers(0, 99), min_size=1, max_size=4)),
}
scalars = st.one_of([st.tuples(st.just(kind), values) for kind, values in ADD_SCALAR.items()])
names = st.text("abcdefghijklmnopqrstuvwxyz.\u00e4\u4e2d", min_size=1, max_size=12)
shapes = st.lists(st.integers(1, 5), min_size=1, max_size=4).map(tuple)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gguf") / "file.gguf"


def with_quantised_tensors(path: Path) -> Path:
    """A file with scalars, arrays and tensors of five types, whose last byte belongs to a tensor."""
    rng = np.random.default_rng(0)
    return write_gguf(
        path,
        "llama",
        {
            "blk.0.attn_norm.weight": rng.standard_normal(7, dtype=np.float32),
            "blk.0.half": rng.standard_normal((3, 5)).astype(np.float16),
            "blk.0.q8": rng.standard_normal((2, 64), dtype=np.float32),
            "blk.0.q4": rng.standard_normal((2, 2, 32), dtype=np.float32),
            "blk.0.ids": np.arange(6, dtype=np.int32).reshape(1, 2, 1, 3),
            "output_norm.weight": rng.standard_normal(16, dtype=np.float32),
        },
        {
            "llama.block_count": 1,
            "general.name": "K\u00f6rper",
            "llama.eps": 1e-5,
            "flag": True,
            "words": ["a", "", "\u4e2d"],
            "ints": [1, 2],
        },
        {"blk.0.q8": gguf.GGMLQuantizationType.Q8_0, "blk.0.q4": gguf.GGMLQuantizationType.Q4_1},
    )


def as_the_gguf_package_reads_it(path: Path) -> tuple[dict[str, Any], dict[str, tuple[Any, ...]]]:
    """Metadata (arrays as their item type and length) and tensor table."""
    reader = gguf.GGUFReader(path)
    metadata: dict[str, Any] = {}
    for key, field in reader.fields.items():
        if key.startswith("GGUF."):  # the reader's own view of the counts
            continue
        is_array = field.types[0] == gguf.GGUFValueType.ARRAY
        metadata[key] = (int(field.types[-1]), len(field.data)) if is_array else field.contents()
    tensors = {
        tensor.name: (
            tuple(int(extent) for extent in tensor.shape),
            int(tensor.tensor_type),
            int(tensor.data_offset),
            int(tensor.n_bytes),
        )
        for tensor in reader.tensors
    }
    return metadata, tensors


def as_read_here(header: GgufHeader) -> tuple[dict[str, Any], dict[str, tuple[Any, ...]]]:
    metadata = {
        key: (value.item_type, value.length) if isinstance(value, ArrayInfo) else value for key, value in header.metadata.items()
    }
    return metadata, {info.name: (info.shape, info.type, info.offset, info.n_bytes) for info in header.tensors.values()}


def string(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()


def by_hand(
    metadata: bytes = b"", n_metadata: int = 0, tensors: bytes = b"", n_tensors: int = 0, version: int = 3, data: int = 256
) -> bytes:
    """The bytes of a GGUF file with the given entries and `data` zero bytes after them."""
    return b"GGUF" + struct.pack("<IQQ", version, n_tensors, n_metadata) + metadata + tensors + bytes(data)


def tensor_row(name: str, shape: tuple[int, ...], kind: int = 0, offset: int = 0) -> bytes:
    return string(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


def test_a_file_with_all_kinds_of_entries_reads_as_the_gguf_package_reads_it(tmp_path: Path) -> None:
    path = with_quantised_tensors(tmp_path / "a.gguf")
    header = read_header(path)
    assert as_read_here(header) == as_the_gguf_package_reads_it(path)
    assert header.architecture == "llama"
    assert header.path == path
    assert header.metadata["flag"] is True


@quick
@given(fields=st.dictionaries(names, scalars, max_size=6), tensors=st.dictionaries(names, shapes, max_size=4))
def test_any_metadata_and_tensors_read_as_the_gguf_package_reads_them(
    scratch: Path, fields: dict[str, tuple[str, Any]], tensors: dict[str, tuple[int, ...]]
) -> None:
    writer = gguf.GGUFWriter(scratch, "llama")
    for key, (kind, value) in fields.items():
        getattr(writer, f"add_{kind}")(key, value)
    for name, shape in tensors.items():
        writer.add_tensor(name, np.zeros(shape, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert as_read_here(read_header(scratch)) == as_the_gguf_package_reads_it(scratch)


@pytest.mark.parametrize("alignment", [8, 64, 4096])
def test_another_alignment_moves_the_tensors_as_the_gguf_package_has_them(tmp_path: Path, alignment: int) -> None:
    path = tmp_path / "a.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_custom_alignment(alignment)
    for name in ("first", "second"):
        writer.add_tensor(name, np.full(3, 7, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    header = read_header(path)
    assert as_read_here(header) == as_the_gguf_package_reads_it(path)
    assert header.tensors["second"].offset % alignment == 0
    assert header.read_f32("second").tolist() == [7, 7, 7]


def test_float_tensors_have_the_values_that_were_written(tmp_path: Path) -> None:
    values = np.array([[1.5, -0.0, 3e38], [1e-45, np.pi, -7]], dtype=np.float32)
    header = read_header(write_gguf(tmp_path / "a.gguf", "llama", {"other": np.ones(5, np.float32), "wanted": values}))
    assert header.read_f32("wanted").tobytes() == values.tobytes()


def test_a_tensor_that_is_not_f32_is_not_read_as_floats(tmp_path: Path) -> None:
    header = read_header(with_quantised_tensors(tmp_path / "a.gguf"))
    with pytest.raises(InputError, match="tensor blk.0.half is not F32") as caught:
        header.read_f32("blk.0.half")
    assert caught.value.exit_code == 2


def test_version_2_reads_like_version_3(tmp_path: Path) -> None:
    path = with_quantised_tensors(tmp_path / "a.gguf")
    whole = read_header(path)
    data = path.read_bytes()
    path.write_bytes(data[:4] + struct.pack("<I", 2) + data[8:])
    old = read_header(path)
    assert (old.metadata, old.tensors, old.layout.version) == (whole.metadata, whole.tensors, 2)


@pytest.mark.demo
def test_the_demo_model_reads_as_the_gguf_package_reads_it(demo_gguf: Path) -> None:
    header = read_header(demo_gguf)
    assert as_read_here(header) == as_the_gguf_package_reads_it(demo_gguf)
    assert header.metadata["llama.block_count"] == 30


def test_a_file_cut_at_any_byte_is_refused(tmp_path: Path) -> None:
    path = with_quantised_tensors(tmp_path / "a.gguf")
    whole = path.read_bytes()
    assert len(whole) == max(tensor.data_offset + tensor.n_bytes for tensor in gguf.GGUFReader(path).tensors)
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError) as caught:
            read_header(path)
        assert str(path) in str(caught.value)
        told = "download it again" if length == 0 else "give a file in GGUF" if length < 4 else "download or export it again"
        assert told in str(caught.value)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The bytes of a whole file."""
    return with_quantised_tensors(tmp_path_factory.mktemp("sound") / "a.gguf").read_bytes()


@settings(deadline=None, max_examples=200)
@given(position=st.integers(0, 10**4), junk=st.binary(min_size=1, max_size=9))
def test_a_file_with_any_bytes_overwritten_is_refused_or_keeps_its_tensors_inside(
    scratch: Path, sound: bytes, position: int, junk: bytes
) -> None:
    position %= len(sound)
    damaged = sound[:position] + junk + sound[position + len(junk) :]
    scratch.write_bytes(damaged)
    try:
        header = read_header(scratch)
    except InputError:
        return
    for info in header.tensors.values():
        assert 0 <= info.offset <= info.offset + info.n_bytes <= len(damaged)


@quick
@given(st.binary(max_size=200))
def test_any_bytes_after_the_magic_are_read_or_refused(scratch: Path, junk: bytes) -> None:
    for start in (b"GGUF", b"GGUF\x03\0\0\0", b"GGUF\x03\0\0\0\0\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0"):
        scratch.write_bytes(start + junk)
        try:
            assert read_header(scratch).path == scratch
        except InputError as error:
            assert any(each in str(error) for each in ("is not a whole GGUF file", "big-endian", "is of type", "is of GGUF"))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", " but empty: "),
        (b"GG", ": give a file in GGUF"),
        (b"PK\x03\x04 a zip", " but a zip archive"),
        (b"FUGG" + bytes(100), ": give"),
    ],
)
def test_a_file_of_another_format_is_refused(tmp_path: Path, content: bytes, told: str) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    with pytest.raises(InputError, match=f"is not a GGUF file{told}") as caught:
        read_header(path)
    assert caught.value.exit_code == 2


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no file .*nowhere.gguf: check the path"):
        read_header(tmp_path / "nowhere.gguf")


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read .*: check the path and its rights"):
        read_header(tmp_path)


U32_KEY = string("general.alignment") + struct.pack("<I", 4)


@pytest.mark.parametrize(
    ("content", "fragment"),
    [
        (by_hand(version=1), "GGUF version 1; 2 and 3 are known"),
        (by_hand(version=400), "not a whole GGUF file .GGUF version 400"),
        (by_hand(n_metadata=2**40), "absurdly long"),
        (by_hand(n_tensors=2**63), "absurdly long"),
        (by_hand(string("key") + struct.pack("<I", 13), 1), "unknown metadata type 13"),
        (by_hand(string("key") + struct.pack("<IIQ", 9, 9, 1), 1), "an array of type 9"),
        (by_hand(string("key") + struct.pack("<IIQ", 9, 8, 2**62), 1), "an array is longer than the file"),
        (by_hand(string("key") + struct.pack("<IIQ", 9, 4, 2**62), 1), "an array is longer than the file"),
        (by_hand(struct.pack("<Q", 2**64 - 1), 1), "a text is absurdly long"),
        (by_hand(U32_KEY + struct.pack("<I", 0), 1), "alignment 0"),
        (by_hand(string("general.alignment") + struct.pack("<I", 8) + string("wide"), 1), "alignment wide"),
        (by_hand(tensors=tensor_row("a", (1, 1, 1, 1, 1)), n_tensors=1), "tensor 'a' has 5 dimensions"),
        (by_hand(tensors=tensor_row("a", (2**40,)), n_tensors=1), "tensor 'a' ends after the file does"),
        (by_hand(tensors=tensor_row("a", (2**63, 2**63)), n_tensors=1), "tensor 'a' ends after the file does"),
        (by_hand(tensors=tensor_row("a", (4,), offset=2**63), n_tensors=1), "tensor 'a' ends after the file does"),
        (by_hand(tensors=tensor_row("a", (4,)) * 2, n_tensors=2), "tensor 'a' appears twice"),
    ],
)
def test_a_damaged_header_is_refused_with_what_is_wrong(tmp_path: Path, content: bytes, fragment: str) -> None:
    path = tmp_path / "damaged.gguf"
    path.write_bytes(content)
    with pytest.raises(InputError, match=fragment) as caught:
        read_header(path)
    assert caught.value.exit_code == 2
    assert "download or export it again" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (by_hand(version=4), "is of GGUF version 4; 2 and 3 are known: update irm-lite"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0) + bytes(64), "is a big-endian GGUF.*gguf-convert-endian FILE little"),
        (by_hand(tensors=tensor_row("a", (4,), kind=999), n_tensors=1), "tensor 'a' is of type 999.*: pip install -U gguf"),
    ],
)
def test_a_file_for_other_readers_is_not_called_damaged(tmp_path: Path, content: bytes, told: str) -> None:
    path = tmp_path / "other.gguf"
    path.write_bytes(content)
    with pytest.raises(InputError, match=told) as caught:
        read_header(path)
    assert "again" not in str(caught.value)


def test_the_same_rows_by_hand_are_read_when_nothing_is_wrong_with_them(tmp_path: Path) -> None:
    path = tmp_path / "sound.gguf"
    path.write_bytes(by_hand(U32_KEY + struct.pack("<I", 32), 1, tensor_row("a", (4,)) + tensor_row("b", (2, 2), offset=32), 2))
    header = read_header(path)
    assert header.metadata == {"general.alignment": 32}
    assert {name: info.shape for name, info in header.tensors.items()} == {"a": (4,), "b": (2, 2)}


def test_a_header_is_parsed_once_until_its_file_is_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[Path] = []

    def counting(cursor: Any, path: Path) -> GgufHeader:
        parsed.append(path)
        return parse(cursor, path)

    parse = gguf_header._parse
    monkeypatch.setattr(gguf_header, "_parse", counting)
    file, tensors = tmp_path / "a.gguf", {"a": np.zeros(4, np.float32)}
    write_gguf(file, "llama", tensors, {"llama.block_count": 1})
    about = file.stat()
    read_header(file)
    read_header(file)
    assert len(parsed) == 2  # it was written just now, and may be again within the same tick of the clock
    monkeypatch.setattr(gguf_header, "_SETTLED", -(1 << 62))
    first = read_header(file)
    first.metadata["llama.block_count"] = 99
    del first.tensors["a"]
    again = read_header(file)
    assert len(parsed) == 3
    assert again.metadata["llama.block_count"] == 1
    assert again.tensors["a"].n_bytes == 16
    write_gguf(file, "llama", tensors, {"llama.block_count": 2})
    os.utime(file, ns=(about.st_atime_ns, about.st_mtime_ns))
    assert file.stat().st_size == about.st_size
    assert read_header(file).metadata["llama.block_count"] == 2
    file.unlink()
    with pytest.raises(InputError, match="there is no file"):
        read_header(file)
