"""The lock of a run: as a second process sees it."""

import os
import platform
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from irm_lite.core.errors import RunError
from irm_lite.runs.directory import RunDirectory

HOLDER = """
import sys
from irm_lite.runs.directory import RunDirectory
with RunDirectory(sys.argv[1]).lock.held():
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def another_process_writing(run: RunDirectory) -> Iterator["subprocess.Popen[str]"]:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(run.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def hold(run: RunDirectory) -> bool:
    with run.lock.held():
        return True


def test_a_second_process_is_kept_out_until_the_first_is_done(run: RunDirectory) -> None:
    with another_process_writing(run) as process:
        with pytest.raises(
            RunError, match=f"is being written by process {process.pid} since .*: wait for it, or stop it"
        ) as caught:
            hold(run)
        assert caught.value.exit_code == 2
        process.communicate("")
        assert process.returncode == 0
        assert hold(run)


def test_a_killed_process_leaves_no_lock(run: RunDirectory) -> None:
    with another_process_writing(run) as process:
        process.kill()
        process.wait()
        assert hold(run)


def test_the_lock_is_free_after_an_error(run: RunDirectory) -> None:
    def fail() -> None:
        with run.lock.held():
            raise ValueError("training failed")

    with pytest.raises(ValueError, match="training failed"):
        fail()
    assert hold(run)


def test_one_process_does_not_write_a_run_twice_at_a_time(run: RunDirectory) -> None:
    with run.lock.held():
        with pytest.raises(RunError, match=f"is being written by process {os.getpid()}"):
            hold(RunDirectory(run.path))
        assert (run.path / "lock.holder").read_text(encoding="utf-8").startswith(f"process {os.getpid()} since ")
    assert not (run.path / "lock.holder").exists()


def test_a_stale_line_that_names_another_process_holds_nothing(run: RunDirectory) -> None:
    """The number of a training that has died was given to another process."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        (run.path / "lock.holder").write_text(f"process {other.pid} since 2026-11-22T00:00:00+00:00 on {platform.node()}\n")
        assert run.lock.holder() is None
        with run.lock.held():
            holder = run.lock.holder()
            assert holder is not None
            assert holder.pid == os.getpid()
        other.communicate(b"\n")
    assert not (run.path / "lock.holder").exists()


def test_a_reader_that_tries_the_lock_keeps_no_writer_out(run: RunDirectory) -> None:
    from filelock import FileLock

    lock = FileLock(run.path / "lock", thread_local=False)
    lock.acquire()
    threading.Timer(0.1, lock.release).start()
    assert hold(run)


def test_a_lock_whose_holder_cannot_be_noted_is_given_back(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(RunError, match="cannot be written .No space left on device.: check that the folder"):
        hold(run)
    monkeypatch.undo()
    assert hold(run)
