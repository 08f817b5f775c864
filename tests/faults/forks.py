"""Command lines in child processes that are forked from this one once everything is imported: a kill costs no imports.

Nothing is computed here: a pool of threads would not survive the fork. Linux and macOS.
"""

import os
import select
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.update({"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"})

import transformers.models.llama.modeling_llama  # noqa: F401  # what a training imports late

from irm_lite.cli import main as cli

_WRITES = ("fsync", "replace", "link", "mkdir", "unlink", "rmdir")  # of os: what atomic files and folders are made with


def start(arguments: list[str], log: Path, first: Callable[[], object] = lambda: None) -> int:
    """Fork a child that calls `first` and then runs one irm-lite command line, its stderr in `log`; gives its process id."""
    return call(lambda: cli.run(arguments), log, first)


def call(job: Callable[[], int], log: Path, first: Callable[[], object] = lambda: None) -> int:
    """Fork a child that calls `first` and `job`, and ends with the code that `job` returns."""
    child = os.fork()
    if child:
        return child
    code = 70  # what no irm-lite ends with
    try:
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for stream in (1, 2):
            os.dup2(descriptor, stream)
        first()
        code = job()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def wait(child: int, seconds: float | None = None) -> int | None:
    """The exit code of a child, negative where a signal ended it; None where it still runs after so many seconds."""
    watched = os.pidfd_open(child)
    try:
        if not select.select([watched], [], [], seconds)[0]:
            return None
    finally:
        os.close(watched)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def kill(child: int) -> None:
    """End a child as a power cut would, and wait for its end."""
    os.kill(child, signal.SIGKILL)
    wait(child)


def at_write(number: int, act: Callable[[], object]) -> Callable[[], None]:
    """For `first` of a child: call `act` just before or after (as the number is odd or even) its `number // 2`-th write, counting
    those calls of os that make a file or folder lasting, give it its name, or take that away."""
    left = number // 2

    def wrapped(name: str) -> Callable[..., Any]:
        real = getattr(os, name)

        def write(*args: Any, **options: Any) -> Any:
            nonlocal left
            left -= 1
            if left == -1 and number % 2:
                act()
            result = real(*args, **options)
            if left == -1 and not number % 2:
                act()
            return result

        return write

    def install() -> None:
        for name in _WRITES:
            setattr(os, name, wrapped(name))

    return install


def die() -> None:
    """For `at_write`."""
    os.kill(os.getpid(), signal.SIGKILL)


def lines(log: Path) -> list[str]:
    """What a command line has complained of."""
    said = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return [line for line in said if line.startswith("irm-lite: ") and not line.startswith("irm-lite: warning")]


@contextmanager
def ballast(folder: Path) -> Iterator[Callable[[], None]]:
    """Give a function that fills the disk of `folder` to its last byte; there is room again at the end."""
    path = folder / "ballast"

    def fill() -> None:
        with path.open("wb", buffering=0) as file:
            for size in (1 << 16, 1 << 9, 1):
                try:
                    while file.write(bytes(size)) == size:
                        pass
                except OSError:
                    continue

    try:
        yield fill
    finally:
        path.unlink(missing_ok=True)
