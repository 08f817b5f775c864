"""The first SIGINT, SIGTERM or SIGHUP asks the work to finish its step and save; the second ends it at once."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from irm_lite.cli.output import Output
from irm_lite.core.errors import Interrupted
from irm_lite.core.machine.processes import SIGNALS


@contextmanager
def graceful(output: Output) -> Iterator[Callable[[], bool]]:
    """Give a function that says whether the user has asked to stop."""
    asked = False

    def handle(_number: int, _frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        output.note("stopping after this step (ask again to stop at once)")

    # What is ignored stays ignored: nohup means that a training outlives the terminal.
    heeded = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, handle) for number in heeded}
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def raise_if(stopped: bool) -> None:
    """End work that has no checkpoint of its own."""
    if stopped:
        raise Interrupted("stopped")
