"""Atomic files: what is on the disk after success, after a failure, and after a process that died."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irm_lite.core.files.atomic import (
    atomic_folder,
    atomic_path,
    free_space,
    remove_folder,
    remove_left_over_files,
    remove_left_over_folders,
    write_text,
)

quick = settings(deadline=None, max_examples=60)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("atomic") / "file.txt"


def test_a_file_appears_whole_with_its_folders_and_nothing_beside_it(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b" / "file.json"
    with atomic_path(target) as temporary:
        temporary.write_bytes(b"content")
        assert not target.exists()
        assert (temporary.parent, temporary.suffix) == (target.parent, ".json")
    assert target.read_bytes() == b"content"
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("error", [ValueError, OSError, KeyboardInterrupt])
@pytest.mark.parametrize("before", [None, b"old"])
def test_a_failure_leaves_what_was_there(tmp_path: Path, error: type[BaseException], before: bytes | None) -> None:
    target = tmp_path / "file"
    if before is not None:
        target.write_bytes(before)

    def fail_half_way() -> None:
        with atomic_path(target) as temporary:
            temporary.write_bytes(b"half")
            raise error

    with pytest.raises(error):
        fail_half_way()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == ({} if before is None else {"file": before})


def test_a_writer_that_writes_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "file"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_dies_half_way_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_bytes(b"old")
    code = (
        "import os, sys, pathlib; from irm_lite.core.files.atomic import atomic_path\n"
        "with atomic_path(pathlib.Path(sys.argv[1])) as temporary: temporary.write_bytes(b'ha'); os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(target)], check=False).returncode == 9
    assert target.read_bytes() == b"old"


def test_two_writers_of_one_file_do_not_meet(tmp_path: Path) -> None:
    target = tmp_path / "file"
    with atomic_path(target) as first:
        first.write_bytes(b"first")
        with atomic_path(target) as second:
            second.write_bytes(b"second")
        assert target.read_bytes() == b"second"
    assert target.read_bytes() == b"first"
    assert list(tmp_path.iterdir()) == [target]


def test_the_content_is_on_the_disk_before_the_name_and_the_name_before_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    kinds: dict[int, str] = {tmp_path.stat().st_ino: "folder"}
    fsync, replace = os.fsync, os.replace

    def recording_fsync(descriptor: int) -> None:
        steps.append(f"fsync {kinds.get(os.fstat(descriptor).st_ino, 'another')}")
        fsync(descriptor)

    def recording_replace(source: Path, target: Path) -> None:
        steps.append("rename")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", recording_fsync)
    monkeypatch.setattr(os, "replace", recording_replace)
    with atomic_path(tmp_path / "file") as temporary:
        temporary.write_bytes(b"content")
        kinds[temporary.stat().st_ino] = "file"
    assert steps == ["fsync file", "rename"] + (["fsync folder"] if os.name != "nt" else [])


@quick
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n"), max_size=40))
def test_text_is_written_as_utf_8(scratch: Path, text: str) -> None:
    write_text(scratch, text)
    assert scratch.read_bytes() == text.encode("utf-8")


def test_text_that_cannot_be_encoded_leaves_what_was_there(tmp_path: Path) -> None:
    write_text(tmp_path / "file", "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(tmp_path / "file", "\ud800")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"file": b"old"}


# Folders


def fill(folder: Path, content: str) -> None:
    with atomic_folder(folder) as temporary:
        (temporary / "inner").mkdir()
        (temporary / "inner" / "file").write_text(content)


def test_a_folder_with_folders_takes_the_place_of_an_earlier_one(tmp_path: Path) -> None:
    for content in ("old", "new"):
        fill(tmp_path / "folder", content)
        assert (tmp_path / "folder" / "inner" / "file").read_text() == content
        assert [path.name for path in tmp_path.iterdir()] == ["folder"]


KILLED = """
import os, sys, pathlib
from irm_lite.core.files import atomic
left, replace = int(sys.argv[2]), os.replace
def dying(*args):
    global left
    left -= 1
    if left < 0: os._exit(9)
    replace(*args)
os.replace = dying
with atomic.atomic_folder(pathlib.Path(sys.argv[1])) as folder:
    (folder / "inner").mkdir()
    (folder / "inner" / "file").write_text("new")
"""


@pytest.mark.parametrize("renames", [0, 1])
def test_a_process_that_dies_between_the_renames_costs_nothing(tmp_path: Path, renames: int) -> None:
    """Before the first the old folder stands; between the two it is aside, and put back by whoever comes next."""
    fill(tmp_path / "folder", "old")
    dead = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "folder"), str(renames)], check=False)
    assert dead.returncode == 9
    assert (tmp_path / "folder").exists() == (renames == 0)
    remove_left_over_folders(tmp_path)
    assert (tmp_path / "folder" / "inner" / "file").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "folder"), str(renames)], check=False)
    with pytest.raises(KeyError), atomic_folder(tmp_path / "folder"):
        raise KeyError
    assert (tmp_path / "folder" / "inner" / "file").read_text() == "old"


def test_only_what_killed_writers_leave_is_removed(tmp_path: Path) -> None:
    kept = [".notes.old", ".hidden", "a.01234567.txt", ".b.0123456x.txt", ".c.0123456.txt"]
    for name in (*kept, ".irm.0123abcd.safetensors", ".lock.0123abcd"):
        (tmp_path / name).write_text("")
    remove_left_over_files(tmp_path)
    remove_left_over_folders(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == set(kept)
    remove_left_over_files(tmp_path / "nowhere")


def test_a_folder_is_removed_under_another_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path / "folder", "x")
    monkeypatch.setattr("irm_lite.core.files.atomic.shutil.rmtree", lambda *_, **__: None)  # killed before it has begun
    remove_folder(tmp_path / "folder")
    assert [path.name for path in tmp_path.iterdir()] == [".folder.gone"]
    monkeypatch.undo()
    remove_left_over_folders(tmp_path)
    assert not list(tmp_path.iterdir())


def test_free_space_is_that_of_the_disk_a_folder_will_be_on(tmp_path: Path) -> None:
    facts = os.statvfs(tmp_path)
    assert free_space(tmp_path / "not" / "yet") == pytest.approx(facts.f_bavail * facts.f_frsize, rel=0.05)
