"""The set-up that make does, with stand-ins for pip, python and a compiler's cache: what is installed, from where, what is said."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

MAKEFILE = Path(__file__).parents[2] / "Makefile"
pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkout of which only the Makefile is real; `tools` is all of its PATH. pip says what it is asked."""
    (tmp_path / "pyproject.toml").touch()
    shutil.copy(MAKEFILE, tmp_path)
    stand_ins = {
        ".venv/bin/pip": 'echo "pip $*; $CMAKE_C_COMPILER_LAUNCHER $CMAKE_CXX_COMPILER_LAUNCHER $CCACHE_BASEDIR"',
        ".venv/bin/python": "exit 1",  # it has no torch
    }
    for name, body in stand_ins.items():
        program(tmp_path / name, body)
    (tmp_path / "tools").mkdir()
    for name in ("sh", "touch"):
        (tmp_path / "tools" / name).symlink_to(shutil.which(name) or "")
    return tmp_path


def program(path: Path, body: str = "exit 0") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


def made(folder: Path, *arguments: str) -> list[str]:
    environment = {"PATH": str(folder / "tools"), "TMPDIR": "/scratch"}
    command = [shutil.which("make") or "make", "--no-print-directory", *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    return [line for line in done.stdout.splitlines() if not line.startswith((".venv", "touch"))]


def test_the_steps_are_said_and_torch_comes_from_the_index_that_was_named(folder: Path) -> None:
    plain = made(folder, ".venv/.demo")
    assert [line[:11] for line in plain if line.startswith("step")] == ["step 1 of 2", "step 2 of 2"]
    assert "make TORCH_INDEX=URL" in plain[0]
    assert plain[-1].startswith("pip install -e .[demo];")
    assert (folder / ".venv" / ".demo").exists()
    assert made(folder, ".venv/.demo")[-1].endswith("is up to date.")
    (folder / ".venv" / ".torch").unlink()
    named = made(folder, ".venv/.fuzz", "TORCH_INDEX=https://wheels.example/cpu")
    assert named[1].startswith("pip install torch --index-url https://wheels.example/cpu;")
    assert named[-1].startswith("pip install -e .[test,fuzz];")


def test_a_gpu_takes_the_default_build(folder: Path) -> None:
    program(folder / "tools" / "nvidia-smi")
    said = made(folder, ".venv/.demo", "TORCH_INDEX=https://wheels.example/cpu")
    assert [line.split(";")[0] for line in said if line.startswith("pip")] == ["pip install -e .[demo]"]


def test_llamacpp_is_compiled_through_a_cache_where_there_is_one(folder: Path) -> None:
    assert made(folder, ".venv/.demo")[-1].split("; ")[1].split() == []
    (folder / ".venv" / ".demo").unlink()
    program(folder / "tools" / "ccache")
    said = made(folder, ".venv/.demo")
    assert said[-1].split("; ")[1].split() == ["ccache", "ccache", "/scratch"]
    assert "(ccache keeps it for the next time)" in said[-2]
    assert os.path.lexists(folder / ".venv" / ".demo")
