"""llama.cpp's log: off the terminal, its errors at hand."""

import atexit
import ctypes
import os
from collections import deque
from functools import cache
from pathlib import Path
from typing import Any

from irm_lite.core.errors import MissingPart, reason
from irm_lite.core.machine.ran_out import ran_out, what_ran_out
from irm_lite.core.machine.spinning import brief_spins

_PLACE = "LLAMA_CPP_LIB_PATH"  # where llama-cpp-python looks for its library, and nowhere else, if it is set
_ERROR = 4  # GGML_LOG_LEVEL_ERROR in ggml.h
_complaints: deque[str] = deque(maxlen=8)  # llama.cpp's latest error lines: it returns no reason


def import_llamacpp() -> Any:
    """The module. Raises MissingPart where its library cannot be loaded, RanOut where there is no memory for it."""
    try:
        with brief_spins():
            import llama_cpp
    except (ImportError, OSError, RuntimeError) as error:
        if lacking := what_ran_out(error):
            raise ran_out(lacking, "loading llama.cpp's library") from error
        hint = f"unset {_PLACE}, which says where it is" if os.environ.get(_PLACE) else "install llama-cpp-python again"
        raise MissingPart(f"llama.cpp's library cannot be loaded ({reason(error)})", hint) from error
    return llama_cpp


def library_folder() -> Path:
    """Where its library lies."""
    return Path(os.environ.get(_PLACE) or Path(import_llamacpp().__file__).parent / "lib")


@cache
def quiet_llamacpp() -> Any:
    """Keep llama.cpp's log off the terminal, and its errors at hand, until Python ends."""
    llama_cpp = import_llamacpp()

    def keep(level: int, text: bytes, _user_data: Any) -> None:
        if level == _ERROR:
            _complaints.append(" ".join(text.decode(errors="replace").split()))

    callback = llama_cpp.llama_log_callback(keep)
    llama_cpp.llama_backend_init()
    llama_cpp.llama_log_set(callback, ctypes.c_void_p(0))
    # What is freed after that, as somebody's own Llama is, is logged to a function of C that looks at nothing.
    deaf = ctypes.cast(llama_cpp.llama_max_devices, llama_cpp.llama_log_callback)
    atexit.register(llama_cpp.llama_log_set, deaf, ctypes.c_void_p(0))
    return callback


def forget_complaints() -> None:
    """Call before what may fail."""
    _complaints.clear()


def complaint() -> str:
    """The first of llama.cpp's latest error lines, which names the cause; those after it say that something failed."""
    return _complaints[0][:200] if _complaints else "it gives no reason"
