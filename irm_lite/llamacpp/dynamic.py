"""The input-dependent IRM inside llama.cpp, by the evaluation callback of its graph.

ggml asks the callback of each tensor whether it is wanted, computes the graph up to there, and hands it over: h0 is read,
or the IRM's output added, before ggml goes on. At which nodes: graph_plan.py. (cb_eval of llama_context_params;
ggml-backend.cpp.)
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from irm_lite.core.errors import LlamaCppError
from irm_lite.core.types import FloatArray
from irm_lite.llamacpp import ggml
from irm_lite.llamacpp.graph_plan import Action, GraphPlan, nodes_of
from irm_lite.llamacpp.graph_walk import GraphMoved, GraphWalk
from irm_lite.llamacpp.one_token import one_token
from irm_lite.steering.injection import Observer
from irm_lite.steering.injection_checks import chosen_layers, require_shape
from irm_lite.steering.irm import IRM, build_irm

_AT_ONCE = 1 << 24  # outputs of all layers are computed together up to this many floats (64 MiB)

Flags = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass
class _MicroBatch:
    """The T tokens that go through the graph now, and what the IRM has made of them so far."""

    logits_wanted: Flags  # (T,)
    single: bool  # one token, whose logits are wanted: generation
    code: Any = None  # `encode`'s, once h0 was read
    outputs: torch.Tensor | None = None  # (L, T, H), where all layers are computed at once
    scaled: FloatArray | None = None  # the same times the strength
    added: int = 0  # layers so far
    failure: BaseException | None = None  # what was raised inside the callback


class DynamicIRM:
    """An IRM at work in one llama.cpp context. Change `strength`, `enabled` and `layers` between calls as you like."""

    def __init__(self, irm: IRM, n_layers: int, hidden_size: int, architecture: str = "llama", eight_bits: bool = False) -> None:
        """`architecture`: GGUF's name for it. `eight_bits`: `one_token`'s.

        Raises InputError where the IRM does not fit a model of this shape, LlamaCppError where llama.cpp's graph has no node for
        its site.
        """
        from llama_cpp import ggml_backend_sched_eval_callback

        require_shape(irm, n_layers, hidden_size)
        with torch.device("meta"):  # on the CPU: the IRM's own weights where they are there, else a copy made in one step
            self.irm = build_irm(irm.kind, irm.hidden_size, irm.layers, irm.site, **irm.options)
        self.irm.load_state_dict({name: value.detach().cpu() for name, value in irm.state_dict().items()}, assign=True)
        self.irm.requires_grad_(False).eval()
        self._one_token = one_token(self.irm, eight_bits)
        self.strength = 1.0
        self.enabled = True
        self.observers: list[Observer] = []  # called with (layer, the unscaled output (T, H) of the micro-batch)
        self.callback = ggml_backend_sched_eval_callback(self._evaluate)  # kept here: llama.cpp holds its address alone
        self._layers = chosen_layers(irm, None)
        self._maps = irm.reads == "maps"
        self._nodes = nodes_of(architecture, irm.h0 if irm.reads == "h0" else irm.site)
        if irm.site == "attn" and not self._nodes.attn:
            raise LlamaCppError(
                f"llama.cpp's graph of {architecture} hides the stream between attention and MLP",
                "use the exported control vector, or train at --site block",
            )
        plan = GraphPlan(irm.site, irm.layers, n_layers, self._nodes, self._maps)
        self._actions = plan.actions
        self._walk = GraphWalk(plan)
        self._batch = _MicroBatch(np.ones(0, dtype=np.bool_), single=False)
        self._rows = ggml.Rows(irm.hidden_size)
        self._inputs = ggml.Rows(irm.options["inner"] if self._maps else irm.hidden_size)
        self._name = ggml.weight_name if self._maps else ggml.function("ggml_get_name")

    @property
    def layers(self) -> frozenset[int]:
        """The layers where it is added: all of the IRM's (set None), or those that were chosen."""
        return self._layers

    @layers.setter
    def layers(self, chosen: Iterable[int] | None) -> None:
        self._layers = chosen_layers(self.irm, chosen)

    def before(self, logits_wanted: Flags) -> None:
        """Call before each llama_decode of one micro-batch, with the flag of each of its tokens, (T,)."""
        single = len(logits_wanted) == 1 and bool(logits_wanted[0])
        self._batch = _MicroBatch(logits_wanted, single)
        self._walk.begin(by_places=single and bool(self._walk.places))
        if not self.enabled:
            self._walk.stop_looking()

    def after(self) -> bool:
        """Call after it; False: decode it again. Raises what was raised inside, or LlamaCppError where the site is missing."""
        batch, walk = self._batch, self._walk
        self._batch = _MicroBatch(batch.logits_wanted, batch.single)  # the outputs' memory is free again
        moved, missing = isinstance(batch.failure, GraphMoved), self.enabled and batch.added != len(self._layers)
        if batch.failure is not None and not moved:
            raise batch.failure
        if batch.single and walk.places and (moved or missing):
            walk.forget_places()
            return False
        if missing:
            raise LlamaCppError(
                f"llama.cpp's graph of this architecture shows {batch.added} of {len(self._layers)} places to inject at",
                "use the exported control vector",
            )
        if batch.single and self.enabled:
            walk.keep_places()
        return True

    def _evaluate(self, tensor: int, ask: bool, _user_data: Any) -> bool:
        # Nothing may leave this function but a bool: an exception would be printed and lost in ctypes.
        walk = self._walk
        try:
            if ask:
                walk.asked += 1
                return walk.asked >= walk.next_stop and walk.wants(self._name(tensor))
            # ggml hands over each wanted node before it asks about the next.
            self._act(tensor, self._actions[walk.stopped_at])
        except BaseException as failure:
            self._batch.failure = failure
            walk.stop_looking()
            return False
        return True

    def _act(self, tensor: int, action: Action) -> None:
        """Read h0 at the first node, add the IRM's output where the plan has one and its layer is chosen."""
        if self._maps:
            self._act_beside(tensor, action)
            return
        batch = self._batch
        through = self._nodes.through and action.reads_h0
        rows = self._rows.read(ggml.input_of_norm(tensor) if through else tensor, 1 if batch.single else None)
        if batch.code is None:
            if not action.reads_h0:  # the node where it is read comes before every other, if it is there
                raise LlamaCppError("llama.cpp's graph of this architecture hides what the IRM reads", "use the control vector")
            self._start(rows)
        index, layer = action.index, action.layer
        if index is None or layer not in self._layers:
            return
        batch.added += 1
        if batch.single and batch.scaled is not None and not self.observers:  # the same as below, L times a token
            rows += batch.scaled[index]
            self._rows.write(tensor, 1)
            return
        added = self._scaled(index) if batch.scaled is None else batch.scaled[index]
        chosen = batch.logits_wanted if action.is_last and len(rows) != len(added) else slice(None)
        for observe in self.observers:
            observe(layer, self._unscaled(index))
        rows += added[chosen]
        self._rows.write(tensor, len(rows))

    @torch.inference_mode()
    def _act_beside(self, tensor: int, action: Action) -> None:
        """Add to what a map puts out what the IRM makes of what it read."""
        batch, (index, layer) = self._batch, (action.index, action.layer)
        if index is None or layer not in self._layers:
            return
        batch.added += 1
        one = 1 if batch.single else None
        vector = self.irm.layer_output(torch.from_numpy(self._inputs.read(ggml.sources(tensor)[1], one)), index)
        for observe in self.observers:  # a last block puts out those rows alone whose logits are wanted: it adds nothing to others
            seen = vector
            if len(vector) != len(batch.logits_wanted):
                seen = torch.zeros(len(batch.logits_wanted), vector.shape[1])
                seen[torch.from_numpy(batch.logits_wanted)] = vector
            observe(layer, seen.clone())
        rows = self._rows.read(tensor, one)
        rows += (self.strength * vector).numpy()
        self._rows.write(tensor, len(rows))

    @torch.inference_mode()
    def _start(self, h0: FloatArray) -> None:
        """From h0 (T, H): all layers' outputs at once, unless that were too much memory."""
        batch = self._batch
        if batch.single and self._one_token is not None:
            batch.code = batch.outputs = self._one_token(torch.from_numpy(h0))[:, None]
            batch.scaled = (batch.outputs if self.strength == 1 else self.strength * batch.outputs).numpy()
            return
        batch.code = self.irm.encode(torch.from_numpy(h0)[None])
        if h0.size * len(self.irm.layers) <= _AT_ONCE:
            batch.outputs = self.irm.outputs(batch.code)[0].transpose(0, 1)  # (L, T, H)
            scaled = batch.outputs if self.strength == 1 else self.strength * batch.outputs
            batch.scaled = scaled.numpy()

    @torch.inference_mode()
    def _unscaled(self, index: int) -> torch.Tensor:
        """One layer's output (T, H), float32."""
        batch = self._batch
        output = self.irm.layer_output(batch.code, index)[0] if batch.outputs is None else batch.outputs[index]
        return output.float()

    def _scaled(self, index: int) -> FloatArray:
        """One layer's output (T, H) times the strength."""
        added: FloatArray = (self.strength * self._unscaled(index)).numpy()
        return added
