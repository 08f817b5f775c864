"""A process of its own that loads a model file and runs two tokens, for architectures whose damage is not known by name.

python -m irm_lite.llamacpp.trial_load MODEL.gguf ends with 0 where llama.cpp survived, whether or not it took the file.
"""

import os
import signal
import sys
from functools import cache
from pathlib import Path

from irm_lite.core.errors import BaseModelError
from irm_lite.core.machine.ran_out import SMALLER_OR_WHOLE, ran_out, what_ran_out
from irm_lite.llamacpp.amx import is_broken
from irm_lite.llamacpp.own_process import ended

_SECONDS = 600


def require_survival(gguf: Path) -> None:
    """Raise BaseModelError where llama.cpp dies of the file, or takes more than ten minutes, RanOut where it is for want of memory.
    A file is tried once."""
    about = gguf.stat()
    _survives(gguf, about.st_size, about.st_mtime_ns)


@cache
def _survives(gguf: Path, _size: int, _written: int) -> None:
    done = ended("irm_lite.llamacpp.trial_load", str(gguf), seconds=_SECONDS)
    if done is None:
        raise BaseModelError(f"llama.cpp does not finish two tokens of {gguf}", "download or convert it again")
    if done.code != 0:
        killed = done.code == -getattr(signal, "SIGKILL", 9)  # nobody else ends it so: the system does, for want of memory
        if lacking := "memory" if killed else what_ran_out(done.errors):
            raise ran_out(lacking, f"trying {gguf} in llama.cpp", SMALLER_OR_WHOLE)
        raise BaseModelError(f"{gguf} crashes llama.cpp (code {done.code})", "download or convert it again")


def _main(gguf: str) -> None:
    import llama_cpp

    llama_cpp.llama_backend_init()
    options = llama_cpp.llama_model_default_params()
    options.n_gpu_layers, options.use_extra_bufts = 0, not is_broken()
    model = llama_cpp.llama_model_load_from_file(os.fsencode(gguf), options)
    if not model:
        return
    about = llama_cpp.llama_context_default_params()
    about.n_ctx = about.n_batch = about.n_ubatch = 32
    context = llama_cpp.llama_init_from_model(model, about)
    if not context:
        return
    every_byte = bytes(range(1, 128)) + "".join(map(chr, (0xE9, 0x20AC, 0x1F600))).encode()
    ids = (llama_cpp.llama_token * 1024)()
    llama_cpp.llama_tokenize(llama_cpp.llama_model_get_vocab(model), every_byte, len(every_byte), ids, 1024, False, True)
    for token in ids[:2]:
        llama_cpp.llama_decode(context, llama_cpp.llama_batch_get_one((llama_cpp.llama_token * 1)(token), 1))


if __name__ == "__main__":
    _main(sys.argv[1])
