"""llama.cpp's log: off the terminal, its errors at hand."""

import ctypes
from collections import deque
from functools import cache
from typing import Any

_ERROR = 4  # GGML_LOG_LEVEL_ERROR in ggml.h
_complaints: deque[str] = deque(maxlen=8)  # llama.cpp's latest error lines: it returns no reason


@cache
def quiet_llamacpp() -> Any:
    """Keep llama.cpp's log off the terminal, and its errors at hand. The callback lives as long as the process."""
    import llama_cpp

    def keep(level: int, text: bytes, _user_data: Any) -> None:
        if level == _ERROR:
            _complaints.append(" ".join(text.decode(errors="replace").split()))

    callback = llama_cpp.llama_log_callback(keep)
    llama_cpp.llama_backend_init()
    llama_cpp.llama_log_set(callback, ctypes.c_void_p(0))
    return callback


def forget_complaints() -> None:
    """Call before what may fail."""
    _complaints.clear()


def complaint() -> str:
    """The first of llama.cpp's latest error lines, which names the cause; those after it say that something failed."""
    return _complaints[0][:200] if _complaints else "it gives no reason"
