"""Pictures of recordings, vectors and snapshots, against numpy on the values they were made from."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from irm_lite.core.errors import InputError, RunError, VectorError
from irm_lite.steering.control_vector import ControlVector
from irm_lite_tui.heatmap.jump import Jump, parse_jump
from irm_lite_tui.heatmap.source import Choice, Picture, drawables_near, load_source, subtract
from support.heatmap_app import TEXTS, a_run, a_snapshot
from support.recordings import HIDDEN, LAYERS, write_recording


def test_a_recordings_pictures_are_those_of_its_outputs(tmp_path: Path) -> None:
    outputs = write_recording(tmp_path / "r", TEXTS)
    source = load_source(tmp_path / "r")
    generated = np.concatenate([each[2:] for each in outputs]).astype(np.float64)
    assert source.modes == ("mean", "mean |v|", "deviation", "token")
    for mode, expected in (
        ("mean", generated.mean(0)),
        ("mean |v|", np.abs(generated).mean(0)),
        ("deviation", generated.std(0)),
    ):
        np.testing.assert_allclose(source.picture(Choice(mode)).values, expected, rtol=1e-5, atol=1e-6)  # type: ignore[arg-type]
    prompt = np.concatenate([each[:2] for each in outputs]).astype(np.float64)
    np.testing.assert_allclose(source.picture(Choice("mean", "prompt")).values, prompt.mean(0), rtol=1e-5, atol=1e-6)
    one = source.picture(Choice("token", "generated", 1, 3))
    np.testing.assert_array_equal(one.values, outputs[1][3].astype(np.float32))
    assert one.layers == tuple(LAYERS)
    assert "generated token 3 of prompt 1: '?'" in one.what
    with pytest.raises(InputError, match="has no such picture"):
        source.picture(Choice("token", "generated", 1, 9))


def test_ranks_and_the_list_are_those_of_sorting(tmp_path: Path) -> None:
    write_recording(tmp_path / "r", TEXTS)
    picture = load_source(tmp_path / "r").picture(Choice())
    by_layer = [sorted(range(HIDDEN), key=lambda index: -abs(picture.values[row, index])) for row in range(3)]
    assert [picture.rank_in_layer(row, index) for row in range(3) for index in by_layer[row]] == [*range(1, HIDDEN + 1)] * 3
    strength = [sum(float(value) ** 2 for value in picture.values[:, index]) for index in range(HIDDEN)]
    order = sorted(range(HIDDEN), key=lambda index: -strength[index])
    assert [index for _, index in picture.top(12)] == order[:12]
    assert all(abs(picture.values[row, index]) == np.abs(picture.values[:, index]).max() for row, index in picture.top(12))
    assert [picture.rank_of_index(index) for index in order] == list(range(1, HIDDEN + 1))


def test_a_difference_is_in_the_layers_that_both_have(tmp_path: Path) -> None:
    write_recording(tmp_path / "a", TEXTS)
    write_recording(tmp_path / "b", TEXTS, seed=50, run="sad", layers=[3, 4, 5])
    one, other = load_source(tmp_path / "a"), load_source(tmp_path / "b")
    picture = subtract(one, other, Choice())
    first, second = one.picture(Choice()).values, other.picture(Choice()).values
    assert picture.layers == (3, 5)
    np.testing.assert_array_equal(picture.values, np.stack([first[1] - second[0], first[2] - second[2]]))
    assert "minus sad, b" in picture.what
    np.testing.assert_array_equal(subtract(one, one, Choice("token", token=3)).values, 0)


def test_what_cannot_be_subtracted_says_why(tmp_path: Path) -> None:
    write_recording(tmp_path / "a", TEXTS)
    write_recording(tmp_path / "wide", TEXTS, hidden_size=HIDDEN + 1)
    write_recording(tmp_path / "deep", TEXTS, layers=[6, 7])
    write_recording(tmp_path / "words", [["<s>", "Why", " kind", "!"], TEXTS[1]])
    one = load_source(tmp_path / "a")
    for name, choice, said in (
        ("wide", Choice(), "hidden sizes 40 and 41"),
        ("deep", Choice(), "no layer is in both"),
        ("words", Choice("token", token=2), "other tokens there"),
    ):
        with pytest.raises(InputError, match=said):
            subtract(one, load_source(tmp_path / name), choice)
    subtract(one, load_source(tmp_path / "words"), Choice("token", token=1))  # up to there they are the same


def test_a_run_gives_its_newest_recording_else_its_vector_else_its_snapshot(tmp_path: Path) -> None:
    run = a_run(tmp_path / "runs" / "angry")
    with pytest.raises(RunError, match="nothing to draw yet.*irm-lite record"):
        load_source(run.path)
    a_snapshot(run.live)
    live = load_source(run.path)
    assert live.live
    assert live.picture(Choice("mean |v|")).layers == (2, 3, 4)
    run.export.mkdir()
    ControlVector({4: np.ones(HIDDEN, dtype=np.float32)}, "llama").save(run.default_vector)
    vector = load_source(run.path)
    assert vector.picture(vector.nearest(Choice("deviation"))).values.tolist() == [[1.0] * HIDDEN]
    write_recording(run.recordings / "first", TEXTS)
    assert load_source(run.path).path == run.recordings / "first"
    a_snapshot(a_run(tmp_path / "runs" / "sad").live)
    names = [name for name, _ in drawables_near(run.recordings / "first", tmp_path / "none")]
    assert names == ["angry, first", "angry, vector", "angry, live", "sad, live", "demo-anger, ships with irm-lite"]
    assert [name for name, _ in drawables_near(tmp_path / "elsewhere", tmp_path / "none")] == names[-1:]
    for nowhere in (None, tmp_path / "elsewhere"):
        assert {name for name, _ in drawables_near(nowhere, run.path.parent)} == set(names)


@pytest.mark.parametrize(
    ("layers", "scale", "rows", "said"),
    [("2-4", np.nan, 3, "values of shape"), ("2-9", 1.0, 3, "8 layers"), ("x", 1.0, 3, "not a layer"), ("2-4", 1.0, 0, "damaged")],
)
def test_a_snapshot_that_makes_no_sense_is_refused(tmp_path: Path, layers: str, scale: float, rows: int, said: str) -> None:
    a_snapshot(tmp_path / "live.safetensors", layers, scale, rows)
    with pytest.raises(RunError, match=said):
        load_source(tmp_path / "live.safetensors")


def test_damaged_and_missing_files_are_refused_in_a_line(tmp_path: Path) -> None:
    a_snapshot(tmp_path / "live.safetensors")
    whole = (tmp_path / "live.safetensors").read_bytes()
    for length in (0, 4, 40, len(whole) - 1):
        (tmp_path / "live.safetensors").write_bytes(whole[:length])
        with pytest.raises(RunError, match="damaged"):
            load_source(tmp_path / "live.safetensors")
    save_file({"mean_abs": np.ones((1, 4), np.float32)}, tmp_path / "live.safetensors")
    with pytest.raises(RunError, match="damaged"):
        load_source(tmp_path / "live.safetensors")
    with pytest.raises(RunError, match="there is no live snapshot"):
        load_source(tmp_path / "none" / "live.safetensors")
    with pytest.raises(RunError, match="not a run directory"):
        load_source(tmp_path / "none")
    with pytest.raises(VectorError, match="there is no file"):
        load_source(tmp_path / "none.gguf")
    write_recording(tmp_path / "r", TEXTS)
    document = json.loads((tmp_path / "r" / "recording.json").read_text())
    (tmp_path / "r" / "recording.json").write_text(json.dumps(document | {"format": 99}))
    with pytest.raises(RunError, match="newer irm-lite"):
        load_source(tmp_path / "r")


@pytest.mark.parametrize(
    ("text", "jump"),
    [
        (":1512", Jump(index=1512)),
        ("l12", Jump(layer=12)),
        (" L3, 40 ", Jump(index=40, layer=3)),
        ("p1 t7", Jump(prompt=1, token=7)),
    ],
)
def test_where_to_go(text: str, jump: Jump) -> None:
    assert parse_jump(text) == jump


@settings(deadline=None, max_examples=60)
@given(st.text(max_size=12))
def test_anything_else_typed_is_refused_in_a_line(text: str) -> None:
    try:
        jump = parse_jump(text)
    except InputError as error:
        assert "type an index" in str(error)
    else:
        assert any(each is not None for each in (jump.index, jump.layer, jump.prompt, jump.token))


def test_a_silent_picture_has_limits_to_divide_by() -> None:
    picture = Picture(np.zeros((2, 5), dtype=np.float32), (0, 1), "")
    assert picture.whole_limit == picture.robust_limit == 1.0
    assert picture.rank_in_layer(0, 3) == 1
