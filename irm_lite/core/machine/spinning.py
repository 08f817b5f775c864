"""How long a waiting thread spins before it sleeps, in OpenMP's GNU runtime, which torch and llama.cpp use on Linux.

Its own default is some 300,000 turns, 12 ms: beside one busy process, or two threads on a core, a waiting thread takes the core
from the one that it waits for, many times a token. At 5000 that is over, and next to nothing is lost alone (docs/log.md): to
sleep at once costs a fifth. Threads keep their number, on which the bits of a sum depend.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

_SPIN = "GOMP_SPINCOUNT"
_SAID = (_SPIN, "OMP_WAIT_POLICY")  # by which a user says it
TURNS = 5000  # 0.2 ms


def spin_briefly() -> None:
    """Call it before the first import of torch or llama.cpp: the runtime reads its environment once. What the user says stays."""
    if not any(name in os.environ for name in _SAID):
        os.environ[_SPIN] = str(TURNS)


@contextmanager
def brief_spins() -> Iterator[None]:
    """Within: what is loaded is told so. Afterwards the environment is as it was: the program around us may be someone else's."""
    if any(name in os.environ for name in _SAID):
        yield
        return
    spin_briefly()
    try:
        yield
    finally:
        del os.environ[_SPIN]
