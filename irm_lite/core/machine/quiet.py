"""Keeps libraries from printing, or downloading, unasked."""

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Silence transformers' progress bars and advice: irm-lite shows its own progress, and errors arrive as exceptions."""
    from transformers import modeling_gguf_pytorch_utils as gguf_loader
    from transformers.utils import logging as transformers_logging

    verbosity, bar = transformers_logging.get_verbosity(), gguf_loader.tqdm
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    gguf_loader.tqdm = lambda items, **_options: items
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        gguf_loader.tqdm = bar
        transformers_logging.set_verbosity(verbosity)
        transformers_logging.enable_progress_bar()


def import_bitsandbytes() -> None:
    """Import bitsandbytes without the download of kernels from the hub, which it tries where `kernels` is installed.

    The CPU's kernel serves an inference layout that bitsandbytes_layout.keep_differentiable rules out. Metal's, from
    macOS 26 on, would be downloaded at the first 4-bit product; without it PyTorch's operations do the same.
    """
    if "bitsandbytes" in sys.modules:
        return
    logger = logging.getLogger("bitsandbytes")
    level, kernels = logger.level, sys.modules.get("kernels")
    logger.setLevel(logging.ERROR)
    sys.modules["kernels"] = None  # type: ignore[assignment]  # makes `from kernels import ...` an ImportError
    try:
        import bitsandbytes  # noqa: F401
    except ImportError:
        pass  # `decide` says so with its hint
    finally:
        del sys.modules["kernels"]
        if kernels is not None:
            sys.modules["kernels"] = kernels
        logger.setLevel(level)
    metal: Any = sys.modules.get("bitsandbytes.backends.mps.ops")
    if metal is not None:
        metal._kernel_load_failed = True
