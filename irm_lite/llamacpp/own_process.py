"""What may kill llama.cpp, run in a process of its own."""

import os
import subprocess
from dataclasses import dataclass

from irm_lite.core.machine.child import run_module


@dataclass(frozen=True)
class Ended:
    """How a process ended. `code`: below 0 the signal that ended it; `errors`: what it wrote there."""

    code: int
    errors: str


def ended(module: str, *arguments: str, seconds: float) -> Ended | None:
    """How a module of ours ends. None: not within so many seconds. Raises OSError where it cannot begin."""
    quiet = {**os.environ, "GGML_NO_BACKTRACE": "1"}  # else ggml calls a debugger where there is one
    command = [*run_module(module), *arguments]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, env=quiet, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        return None
    return Ended(done.returncode, done.stderr.decode(errors="replace"))
