"""A short run of `make fuzz`: coverage-guided inputs for the readers of binary files and of tables."""

import subprocess
import sys
from pathlib import Path

import pytest

READERS = ("control_vector", "csv", "gguf_header", "gguf_model", "irm", "parquet")


@pytest.mark.slow
def test_a_short_run_finds_nothing(tmp_path: Path) -> None:
    pytest.importorskip("atheris")
    drive = Path(__file__).parent / "drive.py"
    command = [sys.executable, str(drive), "--runs", "300", "--seconds", "0", "--found", str(tmp_path / "found"), *READERS]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line.split() for line in done.stdout.splitlines()[-len(READERS) :]]
    assert [(name, int(inputs)) for name, inputs, *_ in rows] == [(name, 300) for name in READERS]
    assert not list((tmp_path / "found").iterdir())
