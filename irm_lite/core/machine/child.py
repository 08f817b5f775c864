"""Processes of our own, which run a module of ours."""

import sys
from contextlib import suppress
from pathlib import Path


def run_module(name: str) -> list[str]:
    """The command that runs a module with this Python. A file of the current folder that is called like a library (llama_cpp.py,
    random.py ...) is not taken for it, as `python -m` would, unless this process looks there too."""
    here = {""}
    with suppress(OSError):  # the folder is gone
        here.add(str(Path.cwd()))
    return [sys.executable, *([] if here & set(sys.path) else ["-P"]), "-m", name]
