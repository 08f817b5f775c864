"""Each architecture of the table in llama.cpp against transformers, and the table in the docs against what it was made from.

The first needs llama.cpp's source with its converter, named by IRM_LITE_LLAMACPP_SOURCE; nothing here fetches it.
"""

import json
import re
from pathlib import Path
from typing import Any

import pytest

import architectures
from irm_lite.base.architectures import TABLE
from zoo.configs import ZOO, Tiny
from zoo.conversion import SOURCE, convert, converter
from zoo.models import write_folder
from zoo.table import dynamic_sites, missing, put_into, sound, table

KEPT: list[dict[str, Any]] = json.loads(architectures.RESULT.read_text(encoding="utf-8"))
README = Path(__file__).parents[2] / "README.md"
BY_NAME = {row["name"]: row for row in KEPT}


@pytest.mark.slow
@pytest.mark.skipif(converter() is None, reason=f"needs llama.cpp's source: {SOURCE}")
def test_every_architecture_is_the_same_in_both_runtimes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = converter()
    assert source is not None
    rows = architectures.examined(architectures.zoo_folders(ZOO, tmp_path), tmp_path, source, tiny=True, train=False)
    for row in rows:
        assert sound(row, "plain"), row
        assert sound(row, "vector"), row
        assert dynamic_sites(row) == dynamic_sites(BY_NAME[row["name"]]), row
        assert all(row[each] == BY_NAME[row["name"]][each] for each in ("same_fingerprint", "bake", "adapter")), row


def test_the_document_has_the_table_of_the_figures() -> None:
    text = architectures.DOCUMENT.read_text(encoding="utf-8")
    assert put_into(text, table(KEPT)) == text
    assert {tiny.name for tiny in ZOO} == BY_NAME.keys()


def test_the_figures_hold_as_many_architectures_as_the_readme_says() -> None:
    experts = {tiny.name for tiny in ZOO if tiny.experts}
    claimed = [row for row in KEPT if sound(row, "plain") and sound(row, "vector")]
    (told,) = re.findall(r"^\| ([0-9]+) kinds of model:", README.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(claimed) == int(told)
    assert sum(row["name"] in experts for row in claimed) >= 4
    assert sum(bool(dynamic_sites(row)) for row in claimed) >= 15
    assert {row["gguf"] for row in claimed} == {each.gguf for each in TABLE.values()}
    assert all(row["trained"] and "export" not in row["why"] for row in claimed)


def test_a_figure_is_sound_only_below_the_limit_and_far_below_its_effect() -> None:
    row: dict[str, Any] = {
        "name": "llama",
        "gguf": "llama",
        "sites": ["block"],
        "h0": "attn",
        "kls": {"plain": 2e-5, "vector": 9e-6, "dynamic block": -9e-6, "dynamic attn": 9e-6},
        "effects": {"vector": 1e-4, "dynamic block": 0.1, "dynamic attn": 0.0},
        "same_fingerprint": False,
        "why": {"dynamic attn": "hidden"},
    }
    assert [sound(row, each) for each in ("plain", "vector", "dynamic block", "dynamic attn", "none")] == [
        False,
        False,
        True,
        False,
        False,
    ]
    told = missing(row)
    assert [line.split(":")[0] for line in told] == ["dynamic attn", "plain", "vector", "dynamic attn", "fingerprint"]


@pytest.mark.slow
def test_a_model_that_the_converter_does_not_take_is_told(tmp_path: Path) -> None:
    """The child's own words; a source that is none ends it before it says anything."""
    llama: Tiny = ZOO[0]
    folder = write_folder(llama, tmp_path / "llama")
    failed = convert(tmp_path, {folder: tmp_path / "out.gguf"})
    assert failed.keys() == {tmp_path / "out.gguf"}
    assert "conversion" in failed[tmp_path / "out.gguf"]


def test_the_tool_asks_for_llamacpp_s_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(SOURCE, str(tmp_path))
    with pytest.raises(SystemExit) as ended:
        architectures.main(["--only", "llama"])
    assert ended.value.code == 2
    assert "llama.cpp's source is needed" in capsys.readouterr().err


def test_the_column_of_adapters_alone_needs_the_rest_of_the_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "convert_hf_to_gguf.py").touch()
    monkeypatch.setenv(SOURCE, str(tmp_path))
    monkeypatch.setattr(architectures, "RESULT", tmp_path / "kept.json")
    (tmp_path / "kept.json").write_text(json.dumps([{"name": "llama"}]), encoding="utf-8")
    for asked, line in ((["--folder", "there"], "leave out --folder"), (["--only", "qwen2"], "no row of qwen2 yet")):
        with pytest.raises(SystemExit) as ended:
            architectures.main(["--adapters", *asked])
        assert ended.value.code == 2
        assert line in capsys.readouterr().err
