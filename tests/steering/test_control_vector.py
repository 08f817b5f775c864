"""Control vectors against NumPy's arithmetic, the gguf package's view of the files, and files as other tools write them."""

import struct
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from irm_lite.core.errors import IrmLiteError, VectorError
from irm_lite.steering.control_vector import ControlVector, load_sum, parse_vector_argument
from support.gguf_files import Array, write_gguf

quick = settings(deadline=None, max_examples=60)

BLOCKS = 12  # of the model that the vectors in the property tests are for

any_float = st.floats(width=32, allow_nan=False, allow_infinity=False)
moderate = st.floats(-1000, 1000, width=32)
keys = st.text("abcdefghijklmnopqrstuvwxyz._", min_size=1, max_size=12)
values = st.one_of(st.text(min_size=1, max_size=20), st.integers(0, 2**32 - 1), any_float)


@st.composite
def vectors(draw: st.DrawFn, elements: st.SearchStrategy[float] = moderate, hidden_size: int | None = None) -> ControlVector:
    size = draw(st.integers(1, 9)) if hidden_size is None else hidden_size
    direction = st.lists(elements, min_size=size, max_size=size).map(lambda row: np.array(row, dtype=np.float32))
    directions = draw(st.dictionaries(st.integers(1, BLOCKS - 1), direction, min_size=1, max_size=5))
    return ControlVector(directions, "llama", draw(st.dictionaries(keys, values, max_size=4)))


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("vectors") / "v.gguf"


def dense(vector: ControlVector) -> Array:
    """(BLOCKS, H), filled in by hand."""
    rows = np.zeros((BLOCKS, len(next(iter(vector.directions.values())))), dtype=np.float32)
    for block in vector.directions:
        rows[block] += vector.directions[block]
    return rows


def ramp(start: float = 0.0, size: int = 6) -> Array:
    return np.arange(start, start + size, dtype=np.float32)


def vector_file(path: Path, tensors: dict[str, Array], fields: dict[str, Any] | None = None) -> Path:
    return write_gguf(path, "controlvector", tensors, fields)


# Files


@pytest.mark.slow
@quick
@given(vectors(any_float))
def test_a_saved_vector_loads_bit_for_bit(scratch: Path, vector: ControlVector) -> None:
    vector.save(scratch)
    loaded = ControlVector.load(scratch)
    assert {n: d.tobytes() for n, d in loaded.directions.items()} == {n: d.tobytes() for n, d in vector.directions.items()}
    assert loaded.architecture == vector.architecture
    assert loaded.metadata == vector.metadata


def test_an_empty_text_in_the_metadata_survives_a_save(tmp_path: Path) -> None:
    ControlVector({1: ramp()}, "llama", {"base.quantisation": "", "kind": "lite"}).save(tmp_path / "v.gguf")
    assert ControlVector.load(tmp_path / "v.gguf").metadata == {"base.quantisation": "", "kind": "lite"}


@pytest.mark.parametrize("number", [-1, 2**32])
def test_any_whole_number_in_the_metadata_survives_a_save(tmp_path: Path, number: int) -> None:
    ControlVector({1: ramp()}, "llama", {"seed": number}).save(tmp_path / "v.gguf")
    assert ControlVector.load(tmp_path / "v.gguf").metadata == {"seed": number}


def test_the_largest_float_in_the_metadata_survives_a_save(tmp_path: Path) -> None:
    """Found by test_a_saved_vector_loads_bit_for_bit: beyond 3e38 the key was lost."""
    largest = float(np.finfo(np.float32).max)
    ControlVector({1: ramp()}, "llama", {"fidelity": largest}).save(tmp_path / "v.gguf")
    assert ControlVector.load(tmp_path / "v.gguf").metadata == {"fidelity": largest}


def test_the_saved_file_is_what_llama_cpp_reads(tmp_path: Path) -> None:
    """Checked with the gguf package against the format that llama.cpp's loader asks for."""
    ControlVector({7: ramp(1), 2: ramp(2)}, "qwen2", {"method": "distil", "fidelity": 0.5, "base.n_layers": 28}).save(
        tmp_path / "v.gguf"
    )
    reader = gguf.GGUFReader(tmp_path / "v.gguf")
    fields = {key: field.contents() for key, field in reader.fields.items() if not key.startswith("GGUF.")}
    assert fields == {
        "general.architecture": "controlvector",
        "controlvector.model_hint": "qwen2",
        "controlvector.layer_count": 2,
        "controlvector.irm.method": "distil",
        "controlvector.irm.fidelity": 0.5,
        "controlvector.irm.base.n_layers": 28,
    }
    assert reader.fields["controlvector.layer_count"].types == [gguf.GGUFValueType.UINT32]
    assert {tensor.name: tensor.data.tolist() for tensor in reader.tensors} == {
        "direction.2": [2, 3, 4, 5, 6, 7],
        "direction.7": [1, 2, 3, 4, 5, 6],
    }
    assert {(tensor.tensor_type, len(tensor.shape)) for tensor in reader.tensors} == {(gguf.GGMLQuantizationType.F32, 1)}


def test_a_file_as_repeng_writes_it_is_read(tmp_path: Path) -> None:
    """The calls of repeng's ControlVector.export_gguf: layers in falling order, no keys but the hint and the count."""
    writer = gguf.GGUFWriter(tmp_path / "v.gguf", "controlvector")
    writer.add_string("controlvector.model_hint", "mistral")
    writer.add_uint32("controlvector.layer_count", 3)
    for layer in (3, 2, 1):
        writer.add_tensor(f"direction.{layer}", ramp(layer * 10))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    vector = ControlVector.load(tmp_path / "v.gguf")
    assert {block: row.tolist() for block, row in vector.directions.items()} == {n: ramp(n * 10).tolist() for n in (1, 2, 3)}
    assert vector.layers == (1, 2, 3)
    assert vector.hidden_size == 6
    assert (vector.architecture, vector.metadata) == ("mistral", {})


def test_a_file_as_cvector_generator_writes_it_is_read(tmp_path: Path) -> None:
    """Its bytes by hand, as ggml's gguf.cpp puts them: every block from 1 on, tensor data padded to 32."""

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value)) + value.encode()

    rows = {n: ramp(-n, size=5) for n in range(1, 4)}
    out = b"GGUF" + struct.pack("<IQQ", 3, len(rows), 3)
    out += text("general.architecture") + struct.pack("<I", 8) + text("controlvector")
    out += text("controlvector.model_hint") + struct.pack("<I", 8) + text("llama")
    out += text("controlvector.layer_count") + struct.pack("<II", 4, len(rows))
    for place, n in enumerate(rows):
        out += text(f"direction.{n}") + struct.pack("<IQIQ", 1, 5, 0, place * 32)
    out += bytes(-len(out) % 32)
    for row in rows.values():
        out += row.astype("<f4").tobytes() + bytes(12)
    (tmp_path / "control_vector.gguf").write_bytes(out)
    vector = ControlVector.load(tmp_path / "control_vector.gguf")
    assert {block: row.tolist() for block, row in vector.directions.items()} == {n: row.tolist() for n, row in rows.items()}
    assert (vector.architecture, vector.metadata) == ("llama", {})


def test_keys_of_other_tools_are_not_taken_for_our_own(tmp_path: Path) -> None:
    fields = {
        "controlvector.irm.kind": "lite",
        "controlvector.author": "someone",
        "controlvector.irm.list": [1, 2],
        "irm.kind": "x",
    }
    assert ControlVector.load(vector_file(tmp_path / "v.gguf", {"direction.1": ramp()}, fields)).metadata == {"kind": "lite"}


def test_loading_takes_a_text_path_too(tmp_path: Path) -> None:
    assert ControlVector.load(str(vector_file(tmp_path / "v.gguf", {"direction.1": ramp()}))).layers == (1,)


NAN = np.array([1, np.nan, 3], dtype=np.float32)
INFINITE = np.array([1, -np.inf, 3], dtype=np.float32)


@pytest.mark.parametrize(
    ("tensors", "fragment"),
    [
        ({"direction.1": ramp().reshape(2, 3)}, "direction.1 has 2 dimensions: directions are 1-D"),
        ({"direction.1": ramp().astype(np.float16)}, "direction.1 is not F32: llama.cpp takes only F32 directions"),
        ({"direction.0": ramp(), "direction.1": ramp()}, "direction.0 cannot be used: llama.cpp takes directions from 1 on"),
        ({"direction.2": NAN}, "direction.2 holds NaN or infinity: export it again"),
        ({"direction.2": INFINITE}, "direction.2 holds NaN or infinity: export it again"),
        ({"direction.1": ramp(size=6), "direction.2": ramp(size=5)}, "all must be (hidden size,)"),
        (
            {"direction.1": ramp(), "blk.0.attn_norm.weight": ramp()},
            "'blk.0.attn_norm.weight' is not a direction: a control vector holds",
        ),
        ({"direction.1": ramp(), "direction.last": ramp()}, "'direction.last' is not a direction"),
        ({"direction.1": ramp(), "direction.-1": ramp()}, "'direction.-1' is not a direction"),
        ({"direction.1": ramp(), "direction.1.bias": ramp()}, "'direction.1.bias' is not a direction"),
        ({"direction.\u0663": ramp()}, "is not a direction"),  # a digit, but not to llama.cpp
        ({}, "needs at least one direction"),
    ],
)
def test_a_file_that_llama_cpp_would_refuse_or_misread_is_refused(tmp_path: Path, tensors: dict[str, Array], fragment: str) -> None:
    path = vector_file(tmp_path / "bad.gguf", tensors)
    with pytest.raises(VectorError) as caught:
        ControlVector.load(path)
    assert caught.value.exit_code == 2
    assert str(path) in str(caught.value)
    assert fragment in str(caught.value)


def test_two_directions_of_one_block_are_summed_as_llama_cpp_does_or_refused(tmp_path: Path) -> None:
    path = vector_file(tmp_path / "v.gguf", {"direction.1": ramp(1), "direction.01": ramp(10)})
    try:
        loaded = ControlVector.load(path)
    except VectorError:
        return
    assert loaded.directions[1].tolist() == (ramp(1) + ramp(10)).tolist()


@pytest.mark.parametrize("architecture", ["llama", "qwen2"])
def test_a_model_is_refused_as_a_vector(tmp_path: Path, architecture: str) -> None:
    path = write_gguf(tmp_path / "model.gguf", architecture, {"direction.1": ramp()})
    with pytest.raises(VectorError, match=rf"is a {architecture} model, not a control vector: give the vector's \.gguf"):
        ControlVector.load(path)


def test_a_missing_file_is_a_vector_error_with_the_fix(tmp_path: Path) -> None:
    with pytest.raises(VectorError, match=r"there is no file .*anger\.gguf: check the path") as caught:
        ControlVector.load(tmp_path / "anger.gguf")
    assert caught.value.exit_code == 2


def test_a_file_cut_at_any_byte_is_a_vector_error(tmp_path: Path) -> None:
    path = vector_file(tmp_path / "v.gguf", {"direction.1": ramp(size=8), "direction.2": ramp(size=8)})
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(VectorError, match="is not a GGUF file|is not a whole GGUF file"):
            ControlVector.load(path)


def test_a_save_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def disk_full(_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(gguf.GGUFWriter, "write_tensors_to_file", disk_full)
    with pytest.raises((OSError, IrmLiteError), match="No space left"):
        ControlVector({1: ramp()}, "llama").save(tmp_path / "v.gguf")
    assert list(tmp_path.iterdir()) == []


def test_a_save_that_fails_leaves_the_vector_that_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ControlVector({1: ramp()}, "llama").save(tmp_path / "v.gguf")
    before = (tmp_path / "v.gguf").read_bytes()

    def disk_full(_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(gguf.GGUFWriter, "write_tensors_to_file", disk_full)
    with pytest.raises((OSError, IrmLiteError)):
        ControlVector({1: ramp(5)}, "llama").save(tmp_path / "v.gguf")
    assert [file.name for file in tmp_path.iterdir()] == ["v.gguf"]
    assert (tmp_path / "v.gguf").read_bytes() == before


def test_a_place_that_cannot_be_written_is_an_error_with_a_fix(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(IrmLiteError, match=r"v\.gguf"):
        ControlVector({1: ramp()}, "llama").save(tmp_path / "file" / "v.gguf")


# Validation


@pytest.mark.parametrize(
    ("directions", "fragment"),
    [
        ({}, "needs at least one direction"),
        ({0: ramp()}, "llama.cpp takes directions from 1 on"),
        ({-1: ramp()}, "llama.cpp takes directions from 1 on"),
        ({1: ramp(size=3), 2: ramp(size=4)}, "all must be (hidden size,)"),
        ({1: ramp().reshape(2, 3)}, "all must be (hidden size,)"),
        ({1: np.float32(3).reshape(())}, "all must be (hidden size,)"),
        ({3: NAN}, "direction.3 holds NaN or infinity"),
        ({3: INFINITE}, "direction.3 holds NaN or infinity"),
    ],
)
def test_directions_that_make_no_vector_are_refused(directions: dict[int, Array], fragment: str) -> None:
    with pytest.raises(VectorError) as caught:
        ControlVector(directions, "llama")
    assert caught.value.exit_code == 2
    assert fragment in str(caught.value)


@pytest.mark.filterwarnings("ignore:overflow encountered")
def test_a_direction_too_large_for_float32_is_refused() -> None:
    with pytest.raises(VectorError, match="holds NaN or infinity"):
        ControlVector({1: np.array([1e300, 0.0])}, "llama")


def test_directions_become_float32_in_the_order_of_the_blocks() -> None:
    vector = ControlVector({9: np.array([1, 2]), 3: np.array([0.1, 0.2])}, "llama")
    assert vector.layers == (3, 9)
    assert {row.dtype for row in vector.directions.values()} == {np.dtype(np.float32)}


# Arithmetic


@quick
@given(vectors(hidden_size=4), vectors(hidden_size=4))
def test_a_sum_is_the_sum_of_the_dense_arrays(a: ControlVector, b: ControlVector) -> None:
    np.testing.assert_array_equal((a + b).as_array(BLOCKS), dense(a) + dense(b))
    np.testing.assert_array_equal((a - b).as_array(BLOCKS), dense(a) - dense(b))
    assert set((a + b).layers) == set(a.layers) | set(b.layers)


@pytest.mark.slow
@quick
@given(vectors(hidden_size=3), vectors(hidden_size=3), vectors(hidden_size=3))
def test_addition_commutes_and_associates(a: ControlVector, b: ControlVector, c: ControlVector) -> None:
    np.testing.assert_array_equal((a + b).as_array(BLOCKS), (b + a).as_array(BLOCKS))
    assert (a + b).metadata == (b + a).metadata
    np.testing.assert_allclose(((a + b) + c).as_array(BLOCKS), (a + (b + c)).as_array(BLOCKS), rtol=0, atol=1e-3)


@quick
@given(vectors(), moderate)
def test_a_scaled_vector_is_the_scaled_dense_array(vector: ControlVector, scale: float) -> None:
    expected = dense(vector) * np.float32(scale)
    np.testing.assert_array_equal((vector * scale).as_array(BLOCKS), expected)
    np.testing.assert_array_equal((scale * vector).as_array(BLOCKS), expected)
    assert (vector * scale).layers == vector.layers


@quick
@given(vectors(hidden_size=3), vectors(hidden_size=3), moderate)
def test_scaling_distributes_over_a_sum(a: ControlVector, b: ControlVector, scale: float) -> None:
    np.testing.assert_allclose((scale * (a + b)).as_array(BLOCKS), (scale * a + scale * b).as_array(BLOCKS), rtol=1e-5, atol=1)


@quick
@given(vectors())
def test_a_vector_less_itself_is_zero_and_twice_negated_itself(vector: ControlVector) -> None:
    assert not (vector - vector).as_array(BLOCKS).any()
    np.testing.assert_array_equal((-vector).as_array(BLOCKS), -dense(vector))
    np.testing.assert_array_equal((-(-vector)).as_array(BLOCKS), dense(vector))


@quick
@given(vectors(), moderate)
def test_arithmetic_leaves_its_operands_as_they_were(vector: ControlVector, scale: float) -> None:
    before, metadata = dense(vector), dict(vector.metadata)
    _ = (vector + vector, vector * scale, -vector)
    np.testing.assert_array_equal(dense(vector), before)
    assert vector.metadata == metadata


def test_a_sum_keeps_the_metadata_that_both_share_but_never_a_fidelity() -> None:
    a = ControlVector({1: ramp()}, "llama", {"base.weights": "ab", "kind": "lite", "fidelity": 0.9, "site": "attn"})
    b = ControlVector({2: ramp()}, "llama", {"base.weights": "ab", "kind": "paper", "fidelity": 0.9})
    assert (a + b).metadata == {"base.weights": "ab"}
    assert (a * 0.5).metadata == {"base.weights": "ab", "kind": "lite", "site": "attn"}
    assert a.metadata["fidelity"] == 0.9


@pytest.mark.parametrize(
    ("other", "fragment"),
    [
        (ControlVector({1: ramp()}, "qwen2"), "a vector for llama of 6 and one for qwen2 of 6 cannot be added"),
        (ControlVector({1: ramp(size=7)}, "llama"), "a vector for llama of 6 and one for llama of 7 cannot be added"),
    ],
)
def test_vectors_of_different_models_do_not_add(other: ControlVector, fragment: str) -> None:
    with pytest.raises(VectorError) as caught:
        ControlVector({1: ramp()}, "llama") + other
    assert fragment in str(caught.value)
    assert "use vectors of one model" in str(caught.value)


def test_other_operands_are_a_type_error() -> None:
    vector: Any = ControlVector({1: ramp()}, "llama")
    for operation in (lambda: vector + 1, lambda: vector - 1, lambda: vector * "2", lambda: vector * vector, lambda: 1 + vector):
        with pytest.raises(TypeError):
            operation()  # type: ignore[no-untyped-call]


@pytest.mark.filterwarnings("ignore:invalid value encountered")
@pytest.mark.parametrize("scale", [float("nan"), float("inf")])
def test_a_scale_that_is_not_finite_is_refused(scale: float) -> None:
    with pytest.raises(VectorError):
        ControlVector({1: ramp()}, "llama") * scale


@pytest.mark.filterwarnings("ignore:overflow encountered")
def test_a_sum_beyond_float32_is_refused() -> None:
    huge = ControlVector({1: np.full(2, 3e38, dtype=np.float32)}, "llama")
    with pytest.raises(VectorError, match="NaN or infinity"):
        huge + huge


# Choosing blocks


@pytest.mark.slow
@quick
@given(vectors(), st.sets(st.integers(0, BLOCKS)))
def test_a_selection_has_the_chosen_blocks_alone(vector: ControlVector, wanted: set[int]) -> None:
    kept = wanted & set(vector.layers)
    assume(kept)
    chosen = vector.select(wanted)
    expected = dense(vector)
    expected[[block for block in range(BLOCKS) if block not in kept]] = 0
    np.testing.assert_array_equal(chosen.as_array(BLOCKS), expected)
    assert set(chosen.layers) == kept
    assert chosen.metadata == vector.metadata


def test_a_selection_of_nothing_is_refused_with_what_there_is() -> None:
    with pytest.raises(VectorError, match="none of the chosen layers is in the vector: it has 3-9"):
        ControlVector({3: ramp(), 9: ramp()}, "llama").select([1, 2])


def test_a_dense_array_has_a_row_for_each_block_of_the_model() -> None:
    rows = ControlVector({1: ramp(1), 3: ramp(3)}, "llama").as_array(5)
    np.testing.assert_array_equal(rows, np.stack([np.zeros(6), ramp(1), np.zeros(6), ramp(3), np.zeros(6)]))
    assert rows.dtype == np.float32


def test_a_direction_beyond_the_model_is_refused() -> None:
    with pytest.raises(
        VectorError, match=r"the vector has direction\.5, the model has 5 blocks: use it with the model it was made for"
    ):
        ControlVector({5: ramp()}, "llama").as_array(5)


# Arguments


@pytest.mark.parametrize(
    ("argument", "path", "scale"),
    [
        ("anger.gguf", "anger.gguf", 1.0),
        ("anger.gguf:0.8", "anger.gguf", 0.8),
        ("anger.gguf:-1", "anger.gguf", -1.0),
        ("anger.gguf:1e-2", "anger.gguf", 0.01),
        ("C:\\v.gguf", "C:\\v.gguf", 1.0),
        ("C:\\v.gguf:2", "C:\\v.gguf", 2.0),
        ("a:b.gguf", "a:b.gguf", 1.0),
        ("a:b:3", "a:b", 3.0),
        ("a:3:b", "a:3:b", 1.0),
        ("anger.gguf:", "anger.gguf:", 1.0),
        (":0.5", ":0.5", 1.0),
        ("dir,with,commas/v.gguf:.5", "dir,with,commas/v.gguf", 0.5),
    ],
)
def test_the_scale_is_split_off_only_where_a_number_follows_the_last_colon(argument: str, path: str, scale: float) -> None:
    assert parse_vector_argument(argument) == (Path(path), scale)


@quick
@given(st.text("abc:/.\\", min_size=1).filter(lambda path: not path.endswith(":")), st.floats(-1e6, 1e6))
def test_path_and_scale_come_back_from_the_argument(path: str, scale: float) -> None:
    assert parse_vector_argument(f"{path}:{scale!r}") == (Path(path), scale)


@pytest.mark.parametrize("argument", ["v.gguf:nan", "v.gguf:inf", "v.gguf:-infinity", "v.gguf:1e999"])
def test_a_scale_in_an_argument_must_be_finite(argument: str) -> None:
    with pytest.raises(VectorError, match=r"of v\.gguf is not a finite number: write PATH:0\.8"):
        parse_vector_argument(argument)


def test_arguments_are_scaled_and_summed(tmp_path: Path) -> None:
    first = vector_file(tmp_path / "a.gguf", {"direction.1": ramp(1), "direction.2": ramp(2)})
    second = vector_file(tmp_path / "b.gguf", {"direction.2": ramp(5)})
    total = load_sum([f"{first}:2", f"{second}:-0.5", str(first)])
    assert total is not None
    np.testing.assert_array_equal(total.as_array(3), np.stack([np.zeros(6), 3 * ramp(1), 3 * ramp(2) - 0.5 * ramp(5)]))


def test_a_single_argument_keeps_its_fidelity_at_scale_one_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    ControlVector({1: ramp()}, "llama", {"fidelity": 0.5, "kind": "lite"}).save(path)
    whole, again, half = load_sum([str(path)]), load_sum([f"{path}:1.0"]), load_sum([f"{path}:0.5"])
    assert whole is not None
    assert again is not None
    assert half is not None
    assert whole.metadata == again.metadata == {"fidelity": 0.5, "kind": "lite"}
    assert half.metadata == {"kind": "lite"}


def test_no_arguments_are_no_vector() -> None:
    assert load_sum([]) is None


def test_one_bad_file_among_the_arguments_is_named(tmp_path: Path) -> None:
    good = vector_file(tmp_path / "a.gguf", {"direction.1": ramp()})
    with pytest.raises(VectorError, match=r"there is no file .*b\.gguf"):
        load_sum([str(good), f"{tmp_path / 'b.gguf'}:0.5"])
