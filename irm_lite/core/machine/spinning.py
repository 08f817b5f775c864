"""How long a waiting thread spins before it sleeps, in OpenMP's GNU runtime, which torch and llama.cpp use on Linux.

Its own default is some 300,000 turns, milliseconds: beside one busy process, or two threads on a core, a waiting thread takes
the core from the one that it waits for. A thousand turns are what the runtime takes by itself where it was told of more threads
than cores, which says nothing of other processes. Threads keep their number, on which the bits of a sum depend.
"""

import os

_SPIN = "GOMP_SPINCOUNT"
_SAID = (_SPIN, "OMP_WAIT_POLICY")  # by which a user says it
TURNS = 1000


def spin_briefly() -> None:
    """Call it before the first import of torch or llama.cpp: the runtime reads its environment once. What the user says stays."""
    if not any(name in os.environ for name in _SAID):
        os.environ[_SPIN] = str(TURNS)
