"""What is made once a test run, however many processes xdist runs it on."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

Once = Callable[[str, Callable[[Path], object]], Path]


def once_in(basetemp: Path) -> Once:
    """Give a function: once(name, make) is a folder of that name that make(folder) has filled. Tests only read what is in it.

    `basetemp` is pytest's for this process; under xdist the processes share the folder around it.
    """
    root = basetemp.parent if "PYTEST_XDIST_WORKER" in os.environ else basetemp

    def once(name: str, make: Callable[[Path], object]) -> Path:
        folder, whole = root / f"once-{name}", root / f"once-{name}.whole"
        with FileLock(root / f"once-{name}.lock"):
            if not whole.exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                make(folder)
                whole.touch()
        return folder

    return once
