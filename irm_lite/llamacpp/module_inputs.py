"""What the linear maps of a model read or put out, token by token, in llama.cpp: by the evaluation callback of its graph.

A map is known by its weight: the node of the product has it as its first source and the input as its second. So this works for
every architecture, whatever it calls its nodes.
"""

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from irm_lite.core.types import FloatArray
from irm_lite.llamacpp import ggml
from irm_lite.llamacpp.model import Model
from irm_lite.llamacpp.runtime import Runtime

Read = Callable[[str, FloatArray], None]  # (map, what it reads (T, n_in) or puts out (T, n_out), float32: a view to be copied)


class WatchedRuntime(Runtime):
    """A context that shows what its linear maps read, or put out: `watch` says which of them ("blk.3.ffn_down"), and to whom."""

    def __init__(self, gguf: Path | str | Model, *, n_ctx: int, n_sequences: int = 1) -> None:
        from llama_cpp import ggml_backend_sched_eval_callback

        self._on_read: Read | None = None
        self._outputs = False
        self._weights: dict[bytes, str] = {}
        self._watch = ggml_backend_sched_eval_callback(self._evaluate)  # kept here: llama.cpp holds its address alone
        self._failure: BaseException | None = None
        self._rows: dict[int, ggml.Rows] = {}
        super().__init__(gguf, n_ctx=n_ctx, n_sequences=n_sequences)

    def _callback(self, irm: object) -> Any:
        return self._watch

    def watch(self, modules: Collection[str], on_read: Read | None, *, outputs: bool = False) -> None:
        """Show what these maps read from now on, or their outputs; to None: nothing."""
        self._weights = {f"{module}.weight".encode(): module for module in modules}
        self._on_read, self._outputs = on_read, outputs

    def read(self, ids: Sequence[int]) -> None:
        """Let a text go through, all of its rows through the last block too. Raises what `on_read` raised."""
        self.begin()
        for at in range(0, len(ids), self.n_batch):
            part = [(token, at + place, 0) for place, token in enumerate(ids[at : at + self.n_batch])]
            self.decode(part, np.ones(len(part), dtype=np.bool_), keep=False)
            if self._failure is not None:
                failure, self._failure = self._failure, None
                raise failure

    def _evaluate(self, tensor: int, ask: bool, _user_data: Any) -> bool:
        # Nothing may leave this function but a bool: an exception would be printed and lost in ctypes.
        if self._on_read is None:
            return not ask
        try:
            module, source = self._module(tensor)
            if module is None or ask:
                return module is not None
            shown = tensor if self._outputs else source
            width = ggml.width(shown)
            self._on_read(module, self._rows.setdefault(width, ggml.Rows(width)).read(shown))
        except BaseException as failure:
            self._failure, self._on_read = failure, None
            return False
        return True

    def _module(self, tensor: int) -> tuple[str | None, int]:
        """The watched map whose product this node is, if it is one, and the address of what it reads."""
        weight, source = ggml.sources(tensor)
        if not weight or not source:
            return None, 0
        return self._weights.get(ggml.function("ggml_get_name")(weight)), source
