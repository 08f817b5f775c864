"""The input-dependent IRM inside llama.cpp, by the evaluation callback of its graph.

llama.cpp names the residual stream after attention `ffn_inp-N` and after the block `l_out-N`. ggml asks the callback of
each tensor whether it is wanted, computes the graph up to there, and hands it over: h0 is read from `ffn_inp-0`, and
the IRM's output is added at its site before ggml goes on. (cb_eval of llama_context_params; ggml-backend.cpp.)
"""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch

from irm_lite.core.errors import InputError, LlamaCppError
from irm_lite.core.types import FloatArray
from irm_lite.llamacpp import ggml
from irm_lite.steering.injection import Observer
from irm_lite.steering.irm import IRM, build_irm
from irm_lite.steering.layers import format_layers

_AT_ONCE = 1 << 24  # outputs of all layers are computed together up to this many floats (64 MiB)
_H0 = b"ffn_inp-0"
_NODE = {"attn": "ffn_inp", "block": "l_out"}
_NONE_LEFT = 1 << 62


class _Moved(Exception):
    """The graph is not the one whose places were kept."""


class DynamicIRM:
    """An IRM at work in one llama.cpp context. Change `strength`, `enabled` and `layers` between calls as you like."""

    def __init__(self, irm: IRM, n_layers: int, hidden_size: int, device: str = "cpu") -> None:
        from llama_cpp import ggml_backend_sched_eval_callback

        if irm.hidden_size != hidden_size or irm.layers[-1] >= n_layers:
            raise InputError(
                f"this IRM is for a hidden size of {irm.hidden_size} and layers up to {irm.layers[-1]}, "
                f"the model has {hidden_size} and {n_layers} layers",
                "give the GGUF of the model that it was trained on",
            )
        with torch.device("meta"):  # a copy on the device, with no second one anywhere; none where it is there already
            self.irm = build_irm(irm.kind, irm.hidden_size, irm.layers, irm.site, **irm.options)
        self.irm.load_state_dict({name: value.detach().to(device) for name, value in irm.state_dict().items()}, assign=True)
        self.irm.requires_grad_(False).eval()
        self.strength = 1.0
        self.enabled = True
        self.observers: list[Observer] = []  # called with (layer, the unscaled output (T, H) of the micro-batch)
        self.callback = ggml_backend_sched_eval_callback(self._evaluate)  # kept here: llama.cpp holds its address alone
        self._n_layers = n_layers
        self._device = device
        self._layers: frozenset[int] = frozenset(irm.layers)
        self._place = {layer: index for index, layer in enumerate(irm.layers)}
        self._wanted = {f"{_NODE[irm.site]}-{layer}".encode(): layer for layer in irm.layers}
        self._wanted.setdefault(_H0, -1)  # read only
        self._name = ggml.function("ggml_get_name")
        self._failure: BaseException | None = None
        self._logits_wanted: np.ndarray[Any, np.dtype[np.bool_]] = np.ones(0, dtype=np.bool_)
        self._code: torch.Tensor | None = None
        self._outputs: torch.Tensor | None = None
        self._scaled: FloatArray | None = None
        self._rows = ggml.Rows(irm.hidden_size)
        self._added = 0
        self._single = False  # one token, whose logits are wanted: generation
        self._asked = 0  # nodes of the graph so far
        self._next = 0  # nodes before this one are not looked at
        self._expected: bytes | None = None  # its name, where it is known
        self._stop = b""  # the name of the node that was asked about last
        self._found: list[tuple[int, bytes]] = []  # this graph's wanted nodes: place in it, name
        self._plan: list[tuple[int, bytes]] = []  # those of the graph for single tokens, once it is known
        self._ahead: Iterator[tuple[int, bytes]] = iter(())  # what is left of it

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
        self._single = len(logits_wanted) == 1 and bool(logits_wanted[0])
        self._failure = self._code = self._outputs = self._scaled = None
        self._added = self._asked = self._next = 0
        self._expected, self._found = None, []
        if not self.enabled:
            self._next = _NONE_LEFT
        elif self._single and self._plan:
            self._ahead = iter(self._plan)
            self._look_ahead()

    def after(self) -> bool:
        """Call after it; False: decode it again. Raises what was raised inside, or LlamaCppError where the site is missing."""
        self._code = self._outputs = self._scaled = None
        moved, missing = isinstance(self._failure, _Moved), self.enabled and self._added != len(self._layers)
        if self._failure is not None and not moved:
            raise self._failure
        if self._single and self._plan and (moved or missing):
            self._plan = []
            return False
        if missing:
            raise LlamaCppError(
                f"llama.cpp's graph of this architecture shows {self._added} of {len(self._layers)} places to inject at",
                "use the exported control vector",
            )
        if self._single and self.enabled:
            self._plan = self._plan or self._found
        return True

    def _evaluate(self, tensor: int, ask: bool, _user_data: Any) -> bool:
        # Nothing may leave this function but a bool: an exception would be printed and lost in ctypes.
        try:
            if ask:
                self._asked += 1
                return self._asked >= self._next and self._wants(tensor)
            self._inject(tensor)
        except BaseException as failure:
            self._failure = failure
            self._next = _NONE_LEFT
            return False
        return True

    def _wants(self, tensor: int) -> bool:
        """Whether to stop at this node, by its name.

        Reading a thousand names costs 3% of a generated token's time, so for single tokens their places in the graph are
        kept; each is still checked by name, and a graph that has changed is read anew.
        """
        name = self._stop = self._name(tensor)
        if self._expected is not None:
            if name != self._expected:
                raise _Moved
            self._look_ahead()
            return True
        if name in self._wanted:
            self._found.append((self._asked, name))
            return True
        return False

    def _look_ahead(self) -> None:
        self._next, self._expected = next(self._ahead, (_NONE_LEFT, None))

    def _inject(self, tensor: int) -> None:
        """At the node that was asked about last: ggml hands over each wanted one before it asks about the next."""
        layer = self._wanted[self._stop]
        rows = self._rows.read(tensor, 1 if self._single else None)
        if self._code is None:
            if self._stop != _H0:  # it comes before every other, if it is there
                raise LlamaCppError("llama.cpp's graph of this architecture hides what the IRM reads", "use the control vector")
            self._start(rows)
        if layer not in self._layers:
            return
        self._added += 1
        index = self._place[layer]
        if self._single and self._scaled is not None and not self.observers:  # the same as below, L times a token
            rows += self._scaled[index]
            self._rows.write(tensor, 1)
            return
        added = self._layer(index) if self._scaled is None else self._scaled[index]
        # The last layer goes on with the rows alone whose logits were asked for.
        chosen = self._logits_wanted if layer == self._n_layers - 1 and len(rows) != len(added) else slice(None)
        for observe in self.observers:
            observe(layer, self._unscaled(index))
        rows += added[chosen]
        self._rows.write(tensor, len(rows))

    @torch.inference_mode()
    def _start(self, h0: FloatArray) -> None:
        """From h0 (T, H): all layers' outputs at once, unless that were too much memory."""
        self._code = self.irm.encode(torch.from_numpy(h0)[None].to(self._device))
        if h0.size * len(self.irm.layers) <= _AT_ONCE:
            self._outputs = self.irm.outputs(self._code)[0].transpose(0, 1)  # (L, T, H)
            scaled = self._outputs if self.strength == 1 else self.strength * self._outputs
            self._scaled = scaled.cpu().numpy()

    @torch.inference_mode()
    def _unscaled(self, index: int) -> torch.Tensor:
        """One layer's output (T, H), float32 on the CPU."""
        assert self._code is not None
        output = self.irm.layer_output(self._code, index)[0] if self._outputs is None else self._outputs[index]
        return output.float().cpu()

    def _layer(self, index: int) -> FloatArray:
        added: FloatArray = (self.strength * self._unscaled(index)).numpy()
        return added
