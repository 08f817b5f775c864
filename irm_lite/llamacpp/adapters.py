"""LoRA adapters loaded beside a model in llama.cpp."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from weakref import finalize

from irm_lite.base.fingerprint import Match
from irm_lite.core.errors import LlamaCppError
from irm_lite.core.files.gguf_header import read_header
from irm_lite.core.machine.llamacpp_log import complaint, forget_complaints
from irm_lite.llamacpp.model import Model
from irm_lite.llamacpp.runtime import Runtime
from irm_lite.steering.adapter import Adapter
from irm_lite.steering.control_vector import parse_vector_argument


def _at_once(work: Callable[[], Any]) -> Any:
    return work()


class LoadedAdapter:
    """An adapter's file in one model. Contexts use it by `Runtime.set_adapters`; close it after them, and before the model."""

    def __init__(self, model: Model, path: Path | str, between: Callable[[Callable[[], Any]], Any] = _at_once) -> None:
        """`between` calls llama.cpp's part where no context of the model is at work in another thread: contexts look through the
        model's list of adapters. Raises VectorError where the file is no adapter or does not fit the model."""
        self.path = Path(path)
        self.adapter = Adapter.load(path)  # in Python first: llama.cpp ends the process over some damaged files
        self.match: Match = self.adapter.require_fit(read_header(model.path), model.fingerprint)
        self.handle: Any = between(lambda: _init(model, path))

    def __enter__(self) -> "LoadedAdapter":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free it."""
        if self.handle:
            free(self.handle)
            self.handle = None

    def leave_to(self, heir: Callable[[Any], Any]) -> None:
        """Instead of `close`: when nobody has it any more, `heir` gets the handle, for `free`; else it ends with the model."""
        finalize(self, heir, self.handle).atexit = False


def free(handle: Any) -> None:
    """Free an adapter that no context uses, where none of the model is at work in another thread."""
    import llama_cpp

    llama_cpp.llama_adapter_lora_free(handle)


def _init(model: Model, path: Path | str) -> Any:
    """Raises LlamaCppError."""
    import llama_cpp

    forget_complaints()
    handle = llama_cpp.llama_adapter_lora_init(model.handle, os.fsencode(path))
    if not handle:
        raise LlamaCppError(f"llama.cpp cannot load {path} ({complaint()})", "use the model that it was made for")
    return handle


Scaled = tuple[LoadedAdapter, float]  # an adapter and its scale


@contextmanager
def at_work(runtime: Runtime, arguments: Sequence[str]) -> Iterator[list[Scaled]]:
    """Within: the adapters of these PATH[:SCALE] arguments work in the context. Raises VectorError where one cannot."""
    loaded = load_all(runtime.model, arguments)
    try:
        runtime.set_adapters(loaded)
        yield loaded
    finally:
        runtime.set_adapters([])  # before they are freed
        for adapter, _ in loaded:
            adapter.close()


def load_all(model: Model, arguments: Sequence[str]) -> list[Scaled]:
    """The adapters of PATH[:SCALE] arguments, each with its scale. Raises VectorError where one cannot be loaded; then none is."""
    chosen = [parse_vector_argument(argument) for argument in arguments]
    with ExitStack() as stack:
        loaded = [(stack.enter_context(LoadedAdapter(model, path)), scale) for path, scale in chosen]
        stack.pop_all()
        return loaded
