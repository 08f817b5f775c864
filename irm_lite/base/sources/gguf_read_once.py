"""transformers' reading of a GGUF, made faster: its parts patched for as long as a base is loaded."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any


@contextmanager
def gguf_read_once() -> Iterator[None]:
    """Let transformers parse a GGUF's vocabulary once, not three times, and index plain memory while it does.

    It parses for the tokenizer, the configuration and the weights, through numpy.memmap's slow indexing, and builds the
    tensor name map once a submodule: 27 s for the demo model, 11 s with this (docs/log.md).
    """
    import gguf
    import numpy as np

    class Reader(gguf.GGUFReader):  # type: ignore[misc]
        data: Any

        def _get(self, *args: object, **options: object) -> object:
            if type(self.data) is np.memmap:
                self.data = self.data.view(np.ndarray)
            return super()._get(*args, **options)

    saved = gguf.GGUFReader, gguf.get_tensor_name_map
    gguf.GGUFReader, gguf.get_tensor_name_map = cache(Reader), cache(gguf.get_tensor_name_map)
    try:
        yield
    finally:
        gguf.GGUFReader, gguf.get_tensor_name_map = saved
