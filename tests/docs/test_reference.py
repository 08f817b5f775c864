"""What the reference and the guides say of messages, files, settings and JSON, held against the code and what it writes."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from irm_lite.base.presets import presets
from irm_lite.cli.main import run
from irm_lite.runs.directory import RunDirectory
from support.documents import ROOT
from support.workshop import copied

REFERENCE = ROOT / "docs" / "reference"


def strings(path: Path) -> Iterator[str]:
    """All texts of a source file, with a null character where a value is put in, joined where Python joins them."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(each.value) if isinstance(each, ast.Constant) else "\0" for each in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def test_every_message_of_the_troubleshooting_page_is_one_of_the_code() -> None:
    """Each quoted in the first column of a table: its words stand in one text of the code, in that order."""
    page = (ROOT / "docs/guides/troubleshooting.md").read_text(encoding="utf-8")
    said = {text for path in (ROOT / "irm_lite").rglob("*.py") for text in strings(path)}
    quoted = [
        message
        for line in page.split("\n")
        if line.startswith("| `") or line.startswith("| a")
        for message in re.findall(r"`([^`]+)`", line.split(" | ")[0])
    ]
    assert len(quoted) > 50
    assert not [each for each in quoted if not any(has(text, each.split("...")) for text in said)]


def has(text: str, words: list[str]) -> bool:
    """Whether a text has these, one behind the other."""
    at = 0
    for each in words:
        at = text.find(each, at)
        if at < 0:
            return False
        at += len(each)
    return True


def test_environment_variables_are_in_the_settings() -> None:
    code = "".join(path.read_text(encoding="utf-8") for room in ("irm_lite", "tui") for path in (ROOT / room).rglob("*.py"))
    assert set(re.findall(r"IRM_LITE_[A-Z_]+", code)) <= set(
        re.findall(r"IRM_LITE_[A-Z_]+", (REFERENCE / "settings.md").read_text(encoding="utf-8"))
    )


def test_every_preset_is_on_its_page() -> None:
    page = (ROOT / "docs/presets.md").read_text(encoding="utf-8")
    assert not [name for name in presets() if f"| `{name}` |" not in page]


@pytest.mark.slow
def test_every_file_of_a_run_is_on_the_page_of_files(workshop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that was trained, exported, recorded, drawn and ablated."""
    folder = copied(workshop, tmp_path / "folder")
    monkeypatch.chdir(folder)
    assert run(["record", "runs/mine", "--limit", "2", "--new-tokens", "2"]) == 0
    assert run(["heatmap", "runs/mine"]) == 0
    written = {path.name for path in RunDirectory("runs/mine").path.rglob("*") if path.is_file()}
    written |= {path.name for path in (workshop / "runs/mine/checkpoints").rglob("*") if path.is_file()}
    page = (REFERENCE / "files.md").read_text(encoding="utf-8")
    numbered = {re.sub(r"[0-9]+", "N", name) for name in written}
    assert not [name for name in sorted(numbered) if not re.search(f"[`/]{re.escape(name)}`", page)]
