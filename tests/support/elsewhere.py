"""The command line as its users start it, in an environment of theirs."""

import os
import subprocess
import sys
from pathlib import Path


def irm_lite(*arguments: object, cwd: Path | str | None = None, **environment: str) -> "subprocess.CompletedProcess[bytes]":
    """Run a verb in a process of its own, with these variables beside the tests' own, in this folder."""
    command = [sys.executable, "-m", "irm_lite", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, env={**os.environ, **environment}, cwd=cwd, stdin=subprocess.DEVNULL, check=False
    )
