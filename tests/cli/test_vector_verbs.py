"""`irm-lite vector`: what is printed and what is written."""

import json
from pathlib import Path

import numpy as np
import pytest

from irm_lite.cli import main as cli
from irm_lite.steering.control_vector import ControlVector


@pytest.fixture
def vector(tmp_path: Path) -> Path:
    directions = {n: np.zeros(6, np.float32) for n in (1, 2, 3)}
    directions[1][:] = (3, 0, 0, 0, 0, -4)
    directions[2][4] = -12
    directions[3][5] = 1
    ControlVector(directions, "llama", {"method": "distil", "fidelity": 0.9}).save(tmp_path / "v.gguf")
    return tmp_path / "v.gguf"


def test_info_draws_norms_and_names_the_largest_indices(vector: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["vector", "info", str(vector), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["norms"] == {"1": 5.0, "2": 12.0, "3": 1.0}
    first, second = document["largest_indices"][:2]
    assert (first["index"], second["index"]) == (4, 5)
    assert first["rms"] == pytest.approx(12 / 3**0.5)
    assert document["metadata"]["method"] == "distil"
    assert cli.run(["vector", "info", str(vector)]) == 0
    shown = capsys.readouterr().out
    bars = [line.count("█") for line in shown.splitlines() if "█" in line]
    assert bars == [round(40 * 5 / 12), 40, round(40 / 12)]
    assert "4 (-12.000)" in shown


def test_scale_slice_and_merge_write_what_they_say(vector: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = ControlVector.load(vector)
    out = tmp_path / "out.gguf"
    assert cli.run(["vector", "scale", str(vector), "-0.5", "-o", str(out)]) == 0
    for layer, direction in ControlVector.load(out).directions.items():
        np.testing.assert_array_equal(direction, source.directions[layer] * np.float32(-0.5))
    assert cli.run(["vector", "slice", str(vector), "--layers", "2-3", "-o", str(out), "--force"]) == 0
    assert ControlVector.load(out).layers == (2, 3)
    assert cli.run(["vector", "merge", f"{vector}:2", f"{out}:-1", "-o", str(tmp_path / "sum.gguf")]) == 0
    merged = ControlVector.load(tmp_path / "sum.gguf")
    np.testing.assert_array_equal(merged.directions[1], 2 * source.directions[1])
    np.testing.assert_array_equal(merged.directions[3], source.directions[3])
    assert merged.metadata["sources"] == "v.gguf:2 + out.gguf:-1"
    assert "fidelity" not in merged.metadata
    capsys.readouterr()
    cases = [
        (["scale", str(vector), "nan", "-o", str(tmp_path / "x.gguf")], "not a finite number"),
        (["slice", str(vector), "--layers", "4", "-o", str(tmp_path / "x.gguf")], "1-3"),
        (["merge", str(vector), "-o", str(out)], "say --force"),
        (["merge", "-o", str(tmp_path / "x.gguf")], "nothing to merge"),
        (["merge", str(vector), "-o", str(tmp_path / "x.txt")], "must end in .gguf"),
        (["info", str(tmp_path / "none.gguf")], "there is no file"),
    ]
    for arguments, expected in cases:
        assert cli.run(["vector", *arguments]) == 2
        captured = capsys.readouterr()
        assert expected in captured.err
        assert captured.err.count("\n") == 1
    assert not (tmp_path / "x.gguf").exists()
