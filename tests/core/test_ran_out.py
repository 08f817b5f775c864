"""Memory and threads that run out: known by the errors that the system and the libraries raise, and told as what they are."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from irm_lite.cli import main as cli
from irm_lite.core.errors import EXIT_FAILED, EXIT_INTERRUPTED, RanOut
from irm_lite.core.machine.ran_out import threads_are_left, told_as_ran_out, what_ran_out
from irm_lite.llamacpp import trial_load
from irm_lite.llamacpp.own_process import Ended

HUGE = 1 << 55  # bytes: more than any address space has


def test_what_libraries_raise_without_memory_is_known() -> None:
    for taking in (lambda: np.empty(HUGE, np.uint8), lambda: torch.empty(HUGE, dtype=torch.uint8), lambda: bytearray(1 << 62)):
        with pytest.raises((MemoryError, RuntimeError)) as caught:
            taking()
        assert what_ran_out(caught.value) == "memory"
        assert what_ran_out(str(caught.value) or caught.value) == "memory"


def test_what_the_system_says_is_known() -> None:
    for number, what in ((12, "memory"), (11, "threads"), (2, None), (28, None)):  # ENOMEM, EAGAIN, ENOENT, ENOSPC on Linux
        if sys.platform == "linux":
            assert what_ran_out(OSError(number, os.strerror(number))) == what
    noexec = "libx.so: failed to map segment from shared object: Operation not permitted"
    assert what_ran_out(ImportError(noexec)) is None
    assert what_ran_out(ImportError(noexec.rpartition(":")[0])) == "memory"
    assert what_ran_out(ValueError("shapes do not fit")) is None
    assert what_ran_out(FileNotFoundError(2, "No such file or directory", "out of memory.gguf")) is None


def test_only_what_ran_out_is_told_as_that() -> None:
    for error, told in (
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "memory ran out: take less"),
        (RuntimeError("can't start new thread"), "no further thread or process can be started: raise the limit"),
    ):
        with pytest.raises(RanOut, match=told), told_as_ran_out("take less"):
            raise error
    for other in (RuntimeError("shapes do not fit"), FileNotFoundError(2, "No such file or directory", "out of memory.gguf")):
        with pytest.raises(type(other)) as caught, told_as_ran_out("take less"):
            raise other
        assert caught.value is other


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (1_200_000 << 10,) * 2)
from irm_lite.cli.main import run
sys.exit(run(sys.argv[1:]))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not heed this limit")
def test_a_base_that_memory_ran_out_for_is_not_called_damaged(demo_gguf: Path, tmp_path: Path) -> None:
    """It was: "cannot be loaded (Unable to allocate ...): check the files", exit code 2."""
    command = ["train", "--quiet", "--model", str(demo_gguf), "--max-steps", "1", "--out", str(tmp_path / "run")]
    done = subprocess.run([sys.executable, "-c", LIMITED, *command], capture_output=True, text=True, check=False)
    last = done.stderr.splitlines()[-1]
    assert done.returncode == EXIT_FAILED, done.stderr
    assert last.startswith(("irm-lite: memory ran out", "irm-lite: no further thread"))
    assert "check the files" not in last
    assert "disagreement" not in last
    assert not (tmp_path / "run").exists()


def test_llamacpp_that_dies_for_want_of_memory_does_not_condemn_the_file(llama_gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for ends in (Ended(-6, "mmap failed: Cannot allocate memory"), Ended(-9, "")):  # the kernel's own choice is a SIGKILL
        monkeypatch.setattr(trial_load, "ended", lambda *_, ends=ends, **__: ends)
        with pytest.raises(RanOut, match="memory ran out"):
            trial_load.require_survival(llama_gguf)


class PanicException(BaseException):
    """As pyo3, which carries the tokenizers, has it: no Exception."""


def test_a_panic_of_a_library_is_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    text = 'ThreadPoolBuildError { kind: IOError(Os { code: 11, message: "Resource temporarily unavailable" }) }'
    for what, line in ((text, "irm-lite: no further thread or process"), ("index out of bounds", "irm-lite: unexpected error")):

        def panics(_arguments: list[str], what: str = what) -> None:
            raise PanicException(what)

        monkeypatch.setattr(cli, "_run_verb", panics)
        assert cli.run(["train"]) == EXIT_FAILED
        said = capsys.readouterr().err
        assert said.startswith(line)
        assert said.count("\n") == 1


def test_an_interruption_that_a_library_raised_for_want_of_threads_is_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenBLAS sends its own process a SIGINT then, which read as the user's."""

    def interrupts(_arguments: list[str]) -> None:
        raise KeyboardInterrupt

    def refused(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(cli, "_run_verb", interrupts)
    assert threads_are_left()
    assert cli.run(["train"]) == EXIT_INTERRUPTED
    monkeypatch.setattr(threading.Thread, "start", refused)
    assert cli.run(["train"]) == EXIT_FAILED
    assert "no further thread or process" in capsys.readouterr().err.splitlines()[-1]
