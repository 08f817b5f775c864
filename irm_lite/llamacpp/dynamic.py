"""The input-dependent IRM inside llama.cpp, by the evaluation callback of its graph.

llama.cpp names the residual stream after attention `ffn_inp-N` and after the block `l_out-N`. ggml asks the callback of
each tensor whether it is wanted, computes the graph up to there, and hands it over: h0 is read from `ffn_inp-0`, and
the IRM's output is added at its site before ggml goes on. (cb_eval of llama_context_params; ggml-backend.cpp.)
"""

import copy
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch

from irm_lite.errors import InputError, LlamaCppError
from irm_lite.injection import Observer
from irm_lite.irm import IRM
from irm_lite.layers import format_layers
from irm_lite.llamacpp import ggml

_AT_ONCE = 1 << 24  # outputs of all layers are computed together up to this many floats (64 MiB)
_NODE = {"attn": "ffn_inp", "block": "l_out"}


class DynamicIRM:
    """An IRM at work in one llama.cpp context. Change `strength`, `enabled` and `layers` between calls as you like."""

    def __init__(self, irm: IRM, n_layers: int, hidden_size: int, device: str = "cpu", dtype: torch.dtype = torch.float32) -> None:
        from llama_cpp import ggml_backend_sched_eval_callback

        if irm.hidden_size != hidden_size or irm.layers[-1] >= n_layers:
            raise InputError(
                f"this IRM is for a hidden size of {irm.hidden_size} and layers up to {irm.layers[-1]}, "
                f"the model has {hidden_size} and {n_layers} layers",
                "give the GGUF of the model that it was trained on",
            )
        self.irm = copy.deepcopy(irm).to(device=device, dtype=dtype).requires_grad_(False).eval()
        self.strength = 1.0
        self.enabled = True
        self.observers: list[Observer] = []  # called with (layer, the unscaled output (T, H) of the rows at hand)
        self.callback = ggml_backend_sched_eval_callback(self._evaluate)  # kept here: llama.cpp holds its address alone
        self._n_layers = n_layers
        self._device = device
        self._layers: frozenset[int] = frozenset(irm.layers)
        self._place = {layer: index for index, layer in enumerate(irm.layers)}
        self._wanted = {f"{_NODE[irm.site]}-{layer}".encode(): layer for layer in irm.layers}
        self._wanted.setdefault(b"ffn_inp-0", -1)  # read only
        self._name = ggml.function("ggml_get_name")
        self._failure: BaseException | None = None
        self._logits_wanted: np.ndarray[Any, np.dtype[np.bool_]] = np.ones(0, dtype=np.bool_)
        self._code: torch.Tensor | None = None
        self._outputs: torch.Tensor | None = None
        self._added = 0

    @property
    def layers(self) -> frozenset[int]:
        """The layers where it is added: all of the IRM's, or those that were chosen."""
        return self._layers

    @layers.setter
    def layers(self, chosen: Iterable[int] | None) -> None:
        wanted = frozenset(self.irm.layers if chosen is None else chosen)
        if not wanted <= set(self.irm.layers):
            raise InputError(f"not all layers of {sorted(wanted)} are injected", f"there are {format_layers(self.irm.layers)}")
        self._layers = wanted

    def before(self, logits_wanted: np.ndarray[Any, np.dtype[np.bool_]]) -> None:
        """Call before each llama_decode of one micro-batch, with the flag of each of its tokens, (T,)."""
        self._logits_wanted = logits_wanted
        self._failure = self._code = self._outputs = None
        self._added = 0

    def after(self) -> None:
        """Call after it. Raises what was raised inside, or LlamaCppError where the graph lacks the site."""
        self._code = self._outputs = None
        if self._failure is not None:
            raise self._failure
        if self.enabled and self._added != len(self._layers):
            raise LlamaCppError(
                f"llama.cpp's graph of this architecture shows {self._added} of {len(self._layers)} places to inject at",
                "use the exported control vector",
            )

    def _evaluate(self, tensor: int, ask: bool, _user_data: Any) -> bool:
        # Nothing may leave this function but a bool: an exception would be printed and lost in ctypes.
        try:
            layer = self._wanted.get(self._name(tensor)) if self.enabled else None
            if ask or layer is None or self._failure is not None:
                return layer is not None and self._failure is None
            self._inject(tensor, layer)
        except BaseException as failure:
            self._failure = failure
            return False
        return True

    @torch.inference_mode()
    def _inject(self, tensor: int, layer: int) -> None:
        rows = ggml.read_rows(tensor, self.irm.hidden_size)
        if self._code is None:  # ffn_inp-0 comes before every other
            self._code = self.irm.encode(torch.from_numpy(rows)[None].to(self._device))
            if len(rows) * len(self.irm.layers) * self.irm.hidden_size <= _AT_ONCE:
                self._outputs = self.irm.outputs(self._code)
        if layer not in self._layers:
            return
        self._added += 1
        index = self._place[layer]
        output = self.irm.layer_output(self._code, index) if self._outputs is None else self._outputs[:, :, index]
        output = output[0].float().cpu()
        if layer == self._n_layers - 1 and len(rows) != len(output):  # the last layer goes on with these rows alone
            output = output[torch.from_numpy(self._logits_wanted)]
        for observe in self.observers:
            observe(layer, output)
        if len(rows):
            rows += np.float32(self.strength) * output.numpy()
            ggml.write_rows(tensor, rows)
