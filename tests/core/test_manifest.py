"""The manifest of a checkpoint: whatever is changed in its folder is found, in one line."""

import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irm_lite.core.files.manifest import MANIFEST, damage, write_manifest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "best").mkdir()
    (tmp_path / "a.bin").write_bytes(b"first")
    (tmp_path / "best" / "b.bin").write_bytes(b"second")
    write_manifest(tmp_path, {})
    return tmp_path


def test_it_lists_every_file_by_size_and_digest(folder: Path) -> None:
    document = json.loads((folder / MANIFEST).read_text())
    assert document["files"] == {
        "a.bin": {"bytes": 5, "sha256": hashlib.sha256(b"first").hexdigest()},
        "best/b.bin": {"bytes": 6, "sha256": hashlib.sha256(b"second").hexdigest()},
    }
    assert damage(folder) == ""


def test_a_digest_that_is_known_is_not_taken_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def taken(path: Path) -> str:
        read.append(path.name)
        return "taken"

    monkeypatch.setattr("irm_lite.core.files.manifest.digest", taken)
    write_manifest(folder, {"a.bin": "known"})
    listed = json.loads((folder / MANIFEST).read_text())["files"]
    assert read == ["b.bin"]
    assert {name: each["sha256"] for name, each in listed.items()} == {"a.bin": "known", "best/b.bin": "taken"}


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.bin", b"firsT", "a.bin has another SHA-256"),
        ("a.bin", b"firs", "a.bin has 4 bytes, not 5"),
        ("a.bin", None, "a.bin is missing"),
        ("best/b.bin", b"", "best/b.bin has 0 bytes, not 6"),
        (MANIFEST, b"{", "manifest.json cannot be read"),
        (MANIFEST, b"[1]", "manifest.json cannot be read"),
        (MANIFEST, b"[" * 100_000, "manifest.json cannot be read"),
        (MANIFEST, b'{"format": 1, "files": {"a.bin": 3}}', "manifest.json cannot be read"),
        (MANIFEST, b'{"format": 1, "files": {"../x": {"bytes": 1, "sha256": ""}}}', "../x is missing"),
        (MANIFEST, None, "manifest.json is missing"),
        (MANIFEST, b'{"format": 2, "files": {}}', "a newer irm-lite wrote it"),
    ],
)
def test_damage_is_told_by_its_file(folder: Path, name: str, content: bytes | None, told: str) -> None:
    (folder.parent / "x").write_bytes(b"1")
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content)
    assert damage(folder) == told


def test_what_is_required_has_to_be_listed(folder: Path) -> None:
    assert damage(folder, ["a.bin", "best/b.bin"]) == ""
    assert damage(folder, ["a.bin", "c.bin"]) == "manifest.json does not list c.bin"


def test_a_part_can_be_passed_over(folder: Path) -> None:
    (folder / "best" / "b.bin").write_bytes(b"Second")
    assert damage(folder, passed_over="best/") == ""
    (folder / "a.bin").unlink()
    assert damage(folder, passed_over="best/") == "a.bin is missing"


def test_files_of_another_size_are_not_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "best" / "b.bin").write_bytes(b"longer than it was")
    monkeypatch.setattr("irm_lite.core.files.manifest.digest", lambda path: pytest.fail(f"{path} was read"))
    assert "18 bytes" in damage(folder)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.integers(1, 255))
def test_any_flipped_byte_is_found(tmp_path_factory: pytest.TempPathFactory, place: int, flip: int) -> None:
    folder = tmp_path_factory.mktemp("flip")
    content = bytearray(range(200))
    (folder / "file").write_bytes(content)
    write_manifest(folder, {})
    content[place % 200] ^= flip
    (folder / "file").write_bytes(content)
    assert damage(folder) == "file has another SHA-256"
