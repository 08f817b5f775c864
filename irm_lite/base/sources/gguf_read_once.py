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
    from transformers import AutoConfig

    class Reader(gguf.GGUFReader):  # type: ignore[misc]
        data: Any

        def _get(self, *args: object, **options: object) -> object:
            if type(self.data) is np.memmap:
                self.data = self.data.view(np.ndarray)
            return super()._get(*args, **options)

    def for_model(model_type: str, **options: Any) -> Any:
        return configured(model_type, **{name: _one(value) if name in _BY_LAYER else value for name, value in options.items()})

    saved, configured = (gguf.GGUFReader, gguf.get_tensor_name_map), AutoConfig.for_model
    gguf.GGUFReader, gguf.get_tensor_name_map = cache(Reader), cache(gguf.get_tensor_name_map)
    AutoConfig.for_model = for_model
    try:
        yield
    finally:
        gguf.GGUFReader, gguf.get_tensor_name_map = saved
        AutoConfig.for_model = configured


_BY_LAYER = ("num_attention_heads", "num_key_value_heads", "intermediate_size")


def _one(value: Any) -> Any:
    """A number that the file gives a layer at a time, which transformers refuses, as one where it is the same in all."""
    return value[0] if isinstance(value, list) and value and value == value[:1] * len(value) else value
