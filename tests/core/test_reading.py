"""Files from anywhere: ordinary ones alone, their size looked at, nothing but OSError and ValueError."""

import os
import threading
from pathlib import Path

import pytest

from irm_lite.core.errors import DataError, InputError, IrmLiteError, RunError
from irm_lite.core.files.jsonl import read_rows
from irm_lite.core.files.reading import open_ordinary, read_json, read_text, read_toml
from irm_lite.jobs.rewrite import read_prompt
from irm_lite.runs.directory import RunDirectory

posix = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are a POSIX thing")


@posix
def test_a_pipe_is_refused_without_waiting_for_its_other_end(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    found: list[OSError] = []

    def read() -> None:
        with pytest.raises(OSError, match="not an ordinary file") as caught:
            read_text(tmp_path / "pipe")
        found.append(caught.value)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    thread.join(10)
    assert len(found) == 1


def enter(run: RunDirectory) -> None:
    with run.lock.held():
        pass


@posix
@pytest.mark.parametrize("name", ["events.jsonl", "lock", "lock.holder"])
def test_a_run_with_a_pipe_in_it_is_not_written(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(RunError, match=f"{name} is not an ordinary file: remove it"):
        enter(RunDirectory(tmp_path))


def test_a_holder_that_cannot_be_told_is_another_process(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    with run.lock.held():
        (tmp_path / "lock.holder").write_bytes(b"\xff\xfe")
        with pytest.raises(RunError, match="is being written by another process"):
            enter(RunDirectory(tmp_path))


@posix
def test_rows_and_prompts_are_read_of_ordinary_files_alone(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jsonl")
    for read, error in ((read_rows, DataError), (read_prompt, InputError)):
        with pytest.raises(error, match="cannot be read"):
            read(tmp_path / "pipe.jsonl")
    with pytest.raises(IrmLiteError, match="cannot be read"):
        read_prompt(Path("a\0b"))
    (tmp_path / "prompt").write_bytes(b"\xef\xbb\xbfAsk {question}.\n")
    assert read_prompt(tmp_path / "prompt") == "Ask {question}."


@posix
def test_a_device_and_a_folder_are_refused_and_a_link_is_followed(tmp_path: Path) -> None:
    for path in (Path("/dev/zero"), tmp_path):
        with pytest.raises(OSError, match="not an ordinary file"):
            open_ordinary(path)
    (tmp_path / "file").write_text("text")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    assert read_text(tmp_path / "link") == "text"


def test_the_size_is_looked_at_before_anything_is_read(tmp_path: Path) -> None:
    (tmp_path / "large").touch()
    os.truncate(tmp_path / "large", 1 << 40)  # sparse: it takes no room
    for read in (read_text, read_json, read_toml):
        with pytest.raises(OSError, match="are more than the"):
            read(tmp_path / "large")
    (tmp_path / "exact").write_bytes(b"x" * 10)
    assert len(read_text(tmp_path / "exact", 10)) == 10
    with pytest.raises(OSError, match="10 bytes are more than the 9"):
        read_text(tmp_path / "exact", 9)


@pytest.mark.parametrize("name", ["a\0b", "a\ud800", "x" * 5000])
def test_what_no_file_can_be_called_is_an_oserror(tmp_path: Path, name: str) -> None:
    with pytest.raises(OSError, match=r"called that|too long"):
        read_text(tmp_path / name)


@pytest.mark.parametrize(
    "text",
    [
        "a = " + "9" * 5000,  # more digits than Python turns into a number
        "a = " + "[" * 3000,
        "a." * 20_000 + "a = 1",  # tomllib would take minutes
        "a = 1979-99-99",
        "a = 1\na = 2",
        "\xff",
    ],
)
def test_toml_that_is_none_is_a_valueerror(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.toml").write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match="."):
        read_toml(tmp_path / "a.toml")


@pytest.mark.parametrize("text", ["9" * 5000, "[" * 100_000, '{"a":' * 100_000, "{", "\xff", ""])
def test_json_that_is_none_is_a_valueerror(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match="."):
        read_json(tmp_path / "a.json")


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    """As Windows' Notepad writes: in a configuration it was an invalid statement, in a chat template a token."""
    (tmp_path / "run.toml").write_bytes(b"\xef\xbb\xbfmodel = 'demo'")
    assert read_toml(tmp_path / "run.toml") == {"model": "demo"}
    assert read_text(tmp_path / "run.toml") == "model = 'demo'"
