"""How many threads a llama.cpp context computes with: fewer while others want the cores, where its bits stay the same.

Threads meet some 400 times a token, so that one whose core another process holds keeps all of them waiting: beside one busy
process two threads on two cores write a third as fast as alone, one thread half as fast (docs/log.md).

The bits: ggml's code for x86 gives each output to one thread, but for flash attention of a single token over a long cache. Where it
is built with BLAS, or for ARM's i8mm, nobody has looked.
"""

from typing import Any

from irm_lite.core.machine.free_cores import FreeCores

_MOST = 16  # llama.cpp gains nothing from more
_SPLIT = 256  # cells of the cache that a single token may read before flash attention splits them over the threads (ggml's ops.cpp)


class Threads:
    """Of one context; made before the model is loaded, so that there is something to look back on."""

    def __init__(self) -> None:
        self._cores = FreeCores()
        self.all = min(self._cores.all, _MOST)
        self._set = self.all

    def choose(self, context: Any, single: bool, position: int) -> None:
        """Before a micro-batch. `single`: llama.cpp may run a token of it by itself. `position`: of its last token, or more.

        Never fewer than half of the cores: where others are busy on all of them, the system gives each its share."""
        import llama_cpp

        bits_depend = single and position >= _SPLIT
        wanted = self.all if bits_depend else max(1, self.all // 2, min(self.all, self._cores.left()))
        if wanted != self._set:
            llama_cpp.llama_set_n_threads(context, wanted, wanted)
            self._set = wanted
