"""How long a waiting thread spins before it sleeps, in OpenMP's GNU runtime, which torch and llama.cpp use on Linux.

Its own default is some 300,000 turns, 12 ms: beside one busy process, or two threads on a core, a waiting thread takes the core
from the one that it waits for, many times a token. How few turns lose nothing alone depends on how often threads wait: a training
seldom, llama.cpp some 400 times a token (figures in docs/log.md). torch and llama.cpp share the runtime that is loaded first, so a
process has one number. While others want the cores a training's threads sleep sooner than that (sleep_sooner.py).
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

_SPIN = "GOMP_SPINCOUNT"
TRAINING, WRITING = 20_000, 2_000  # 0.8 and 0.08 ms
_WRITERS = ("generate", "serve")  # the verbs that do nothing but run llama.cpp


def spin_briefly(verb: str = "") -> None:
    """Call it before the first import of torch or llama.cpp: the runtime reads its environment once. What the user says stays."""
    if not waiting_is_said():
        os.environ[_SPIN] = str(WRITING if verb in _WRITERS else TRAINING)


@contextmanager
def brief_spins() -> Iterator[None]:
    """Within: llama.cpp, as it is loaded, is told so where nothing else is said. Afterwards the environment is as it was: the
    program around us may be someone else's."""
    if _SPIN in os.environ or waiting_is_said():
        yield
        return
    os.environ[_SPIN] = str(WRITING)
    try:
        yield
    finally:
        del os.environ[_SPIN]


def waiting_is_said() -> bool:
    """Whether the user has told how to wait; a process of ours may have been started by another, whose number is inherited."""
    return "OMP_WAIT_POLICY" in os.environ or os.environ.get(_SPIN) not in (None, str(TRAINING), str(WRITING))
