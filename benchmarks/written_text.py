"""A process that writes text in llama.cpp, by turns: what benchmarks/waiting.py has beside the trainings of contenders/.

Run as a module, with {"model", "prompt", "gives_way"} as its first line; one JSON object a line each way after that.
"""

import json
import sys
import time

from irm_lite.core.errors import IrmLiteError

NEW = 64  # tokens


def main() -> None:
    told = json.loads(sys.stdin.readline())
    try:
        write(told["model"], told["prompt"], told["gives_way"])
    except IrmLiteError as error:
        say(failed=str(error))


def write(model: str, prompt_tokens: int, gives_way: bool) -> None:
    """A text for each line on standard input. `gives_way`: with fewer threads while others want the cores, as irm-lite has it;
    else always with all."""
    import numpy as np

    from irm_lite.base.presets import find_gguf
    from irm_lite.core.machine.free_cores import FreeCores
    from irm_lite.llamacpp import Runtime

    if not gives_way:
        FreeCores.left = lambda self: self.all  # type: ignore[method-assign]
    prompt = [int(token) for token in np.random.default_rng(0).integers(1000, 30_000, prompt_tokens)]
    with Runtime(find_gguf(model), n_ctx=prompt_tokens + NEW) as runtime:
        say(ready=True)
        for _ in sys.stdin:
            written, began = 0, time.perf_counter()
            for _token in runtime.generate_tokens(prompt, max_new_tokens=NEW):
                began = began if written else time.perf_counter()  # what reads the prompt is no writing
                written += 1
            say(real=written - 1, seconds=time.perf_counter() - began)


def say(**values: object) -> None:
    print(json.dumps(values), flush=True)


if __name__ == "__main__":
    main()
