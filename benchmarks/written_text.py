"""A process that writes text in llama.cpp, by turns: what benchmarks/waiting.py has beside the trainings of contenders/."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping

PROMPT, NEW = 32, 64


class Writer:
    """One process; between turns it sleeps."""

    def __init__(self, model: str, environment: Mapping[str, str], gives_way: bool = True) -> None:
        """`gives_way`: with fewer threads while others want the cores, as irm-lite has it; else always with all."""
        self._process = subprocess.Popen(
            [sys.executable, __file__, model, *([] if gives_way else ["all"])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
        )

    def turn(self) -> dict[str, float]:
        """Tokens and seconds of one text."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print("go", file=self._process.stdin, flush=True)
        found: dict[str, float] = json.loads(self._process.stdout.readline())
        return found

    def end(self) -> None:
        self._process.communicate()


def write(model: str, gives_way: bool) -> None:
    """In the process: a text for each line on standard input."""
    import numpy as np

    from irm_lite.base.presets import find_gguf
    from irm_lite.core.machine.free_cores import FreeCores
    from irm_lite.llamacpp import Runtime

    if not gives_way:
        FreeCores.left = lambda self: self.all  # type: ignore[method-assign]
    prompt = [int(token) for token in np.random.default_rng(0).integers(1000, 40000, PROMPT)]
    with Runtime(find_gguf(model), n_ctx=PROMPT + NEW) as runtime:
        for _ in sys.stdin:
            began = time.perf_counter()
            written = sum(1 for _ in runtime.generate_tokens(prompt, max_new_tokens=NEW))
            print(json.dumps({"real": written, "seconds": time.perf_counter() - began}), flush=True)


if __name__ == "__main__":
    write(sys.argv[1], gives_way=not sys.argv[2:])
