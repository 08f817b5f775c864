"""A training whose terminal is closed, whose log's disk is full, or whose reader has gone."""

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from irm_lite.cli.stderr import LastingStderr
from irm_lite.runs.directory import RunDirectory

FLAGS = ["--quant", "none", "--dtype", "float32", "--device", "cpu", "--rank", "4", "--width", "32", "--layers", "1-2"]
FLAGS += ["--batch-size", "4", "--sample-tokens", "0"]


def command(llama_folder: Path, out: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "irm_lite", "train", "--model", str(llama_folder), *FLAGS, "--out", str(out), *more]


def test_what_cannot_be_written_any_more_goes_nowhere() -> None:
    reader, writer = os.pipe()
    stream = os.fdopen(writer, "w", buffering=1)
    lasting = LastingStderr(stream)
    lasting.write("heard\n")
    assert os.read(reader, 100) == b"heard\n"
    os.close(reader)
    for _ in range(2):
        assert lasting.write("unheard\n") == 8
        lasting.flush()
    stream.close()  # what it still holds can be written
    assert lasting.encoding == stream.encoding


def test_a_signal_within_a_write_does_no_harm() -> None:
    class Busy:
        def write(self, text: str) -> int:
            raise RuntimeError("reentrant call inside <_io.BufferedWriter name='<stderr>'>")

        flush = write

    assert LastingStderr(Busy()).write("text") == 4  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_log_on_a_full_disk_ends_no_training(llama_folder: Path, tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            command(llama_folder, tmp_path / "run", "--max-steps", "3"), stdout=subprocess.PIPE, stderr=full, text=True, check=False
        )
    assert done.returncode == 0
    assert "is the best, validation NLL" in done.stdout
    assert RunDirectory(tmp_path / "run").events.finished()


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a pseudo-terminal")
def test_a_closed_terminal_ends_a_training_with_a_checkpoint(llama_folder: Path, tmp_path: Path) -> None:
    import pty

    out = tmp_path / "run"
    child, terminal = pty.fork()
    if child == 0:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        os.execv(
            sys.executable, command(llama_folder, out, "--max-steps", "100000", "--save-steps", "90000", "--eval-steps", "90000")
        )
    while not any(event["kind"] == "step" for event in RunDirectory(out).events.read()):
        if select.select([terminal], [], [], 0.1)[0]:
            os.read(terminal, 1 << 16)
    os.close(terminal)  # the system sends SIGHUP
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 130
    run = RunDirectory(out)
    end = list(run.events.read())[-1]
    assert (end["kind"], end["reason"]) == ("end", "interrupted")
    newest = run.checkpoints.newest_sound()
    assert newest is not None
    assert newest.name == f"step-{end['step']}"
