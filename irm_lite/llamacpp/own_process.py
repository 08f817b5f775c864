"""What may kill llama.cpp, run in a process of its own."""

import os
import subprocess

from irm_lite.core.machine.child import run_module


def exit_code(module: str, *arguments: str, seconds: float) -> int | None:
    """How a module of ours ends; below 0 the signal that ended it. None: not within so many seconds. Raises OSError where it cannot
    begin."""
    quiet = {**os.environ, "GGML_NO_BACKTRACE": "1"}  # else ggml calls a debugger where there is one
    command = [*run_module(module), *arguments]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, env=quiet, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        return None
    return done.returncode
