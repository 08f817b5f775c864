"""What the maps of a steered model read and put out on given texts: in llama.cpp on a GGUF, or in transformers."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from irm_lite.base.architecture import inner_decoder
from irm_lite.base.load import Base
from irm_lite.core.types import FloatArray
from irm_lite.llamacpp.module_inputs import WatchedRuntime
from irm_lite.steering.control_vector import ControlVector
from irm_lite.steering.injection import Observer, inject
from irm_lite.steering.irm import IRM


@dataclass(frozen=True)
class Text:
    """Token ids, read by the model as it is steered at this strength. `answer_start`: of the token that the answer begins with."""

    ids: list[int]
    strength: float
    answer_start: int


class Source(Protocol):
    """A model under a vector, whose maps can be watched."""

    def read(self, modules: Sequence[str], texts: Sequence[Text]) -> dict[str, FloatArray]:
        """By map: what it reads, (T, n_in), the texts' tokens one after another."""
        ...

    def put_out(self, modules: Sequence[str], texts: Sequence[Text]) -> dict[str, FloatArray]:
        """By map: what it puts out, (T, n_out)."""
        ...


class LlamaCppSource:
    """A GGUF in llama.cpp under a control vector."""

    def __init__(self, runtime: WatchedRuntime, vector: ControlVector) -> None:
        self._runtime = runtime
        self._vector = vector

    def read(self, modules: Sequence[str], texts: Sequence[Text]) -> dict[str, FloatArray]:
        return self._seen(modules, texts, outputs=False)

    def put_out(self, modules: Sequence[str], texts: Sequence[Text]) -> dict[str, FloatArray]:
        return self._seen(modules, texts, outputs=True)

    def _seen(self, modules: Sequence[str], texts: Sequence[Text], *, outputs: bool) -> dict[str, FloatArray]:
        seen: dict[str, list[FloatArray]] = {module: [] for module in modules}
        self._runtime.watch(modules, lambda module, rows: seen[module].append(rows.copy()), outputs=outputs)
        try:
            for text in texts:
                self._runtime.set_vector(self._vector, text.strength)
                self._runtime.read(text.ids)
        finally:
            self._runtime.watch((), None)
            self._runtime.set_vector(None)
        return {module: np.concatenate(rows) for module, rows in seen.items()}


class TransformersSource:
    """A base in transformers under a control vector or an IRM. `names`: the model's names of the maps, by GGUF's."""

    def __init__(self, base: Base, steering: ControlVector | IRM, names: Mapping[str, str]) -> None:
        self._base = base
        self._steering = steering
        self._names = names

    def read(self, modules: Sequence[str], texts: Sequence[Text], observers: Sequence[Observer] = ()) -> dict[str, FloatArray]:
        """As above; observers see what the steering adds, unscaled."""
        return self._seen(modules, texts, observers, outputs=False)

    def put_out(self, modules: Sequence[str], texts: Sequence[Text]) -> dict[str, FloatArray]:
        return self._seen(modules, texts, (), outputs=True)

    @torch.no_grad()
    def _seen(
        self, modules: Sequence[str], texts: Sequence[Text], observers: Sequence[Observer], *, outputs: bool
    ) -> dict[str, FloatArray]:
        model: Any = self._base.model
        seen: dict[str, list[FloatArray]] = {module: [] for module in modules}

        def keep(module: str) -> Callable[..., None]:
            def read(_module: object, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
                shown = output if outputs else args[0]
                seen[module].append(shown[0].float().cpu().numpy())

            return read

        handles = [model.get_submodule(self._names[module]).register_forward_hook(keep(module)) for module in modules]
        injection: AbstractContextManager[Any] = inject(model, self._steering)
        try:
            with injection as injected:
                injected.observers[:] = observers
                for text in texts:
                    injected.strength = text.strength
                    inner_decoder(model)(input_ids=torch.tensor([text.ids], device=model.device), use_cache=False)
        finally:
            for handle in handles:
                handle.remove()
        return {module: np.concatenate(rows) for module, rows in seen.items()}
