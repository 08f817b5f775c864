"""Adds an IRM's outputs to the residual stream by PyTorch hooks, and leaves no trace when it ends.

Site `attn`: the output of self_attn is what the block adds to the residual stream before its MLP, so a vector added to
it arrives in the stream right there. Site `block`: the vector is added to the block's output, as llama.cpp does it.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from irm_lite.architecture import block_input, decoder_layers, hidden_state, with_hidden_state
from irm_lite.errors import InputError
from irm_lite.irm import IRM, StaticIRM
from irm_lite.layers import format_layers

if TYPE_CHECKING:
    from irm_lite.control_vector import ControlVector

Observer = Callable[[int, Tensor], None]  # called with (layer, the unscaled IRM output (B, T, H))

_active: "WeakKeyDictionary[nn.Module, list[object]]" = WeakKeyDictionary()


class Injection:
    """A running injection. Change `strength`, `enabled` and `layers` between forwards as you like."""

    def __init__(self, model: nn.Module, irm: IRM, strength: float, layers: Iterable[int] | None) -> None:
        blocks = decoder_layers(model)
        hidden_size = model.config.hidden_size  # type: ignore[union-attr]
        if irm.hidden_size != hidden_size or irm.layers[-1] >= len(blocks):
            raise InputError(
                f"this IRM is for a hidden size of {irm.hidden_size} and layers up to {irm.layers[-1]}, "
                f"the model has {hidden_size} and {len(blocks)} layers",
                "inject it into the model it was trained on",
            )
        self.model = model
        self.irm = irm
        self.strength = strength
        self.enabled = True
        self.layers: frozenset[int] | None = None if layers is None else frozenset(layers)
        if self.layers is not None and not self.layers <= set(irm.layers):
            raise InputError(
                f"not all layers of {sorted(self.layers, key=str)} are injected", f"there are {format_layers(irm.layers)}"
            )
        self.observers: list[Observer] = []
        self._h0_residual: Tensor | None = None
        self._code: Tensor | None = None
        self._handles: list[Any] = []

    def _attach(self) -> None:
        blocks: Any = decoder_layers(self.model)
        keep = self._handles.append
        keep(blocks[0].register_forward_pre_hook(self._enter, with_kwargs=True))
        keep(blocks[0].self_attn.register_forward_hook(self._read))  # before layer 0's own injection: h0 is untouched
        for index, layer in enumerate(self.irm.layers):
            module = blocks[layer].self_attn if self.irm.site == "attn" else blocks[layer]
            keep(module.register_forward_hook(self._adder(index, layer)))

    def _detach(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._h0_residual = self._code = None

    def _enter(self, _module: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Any]) -> None:
        self._h0_residual = block_input(args, kwargs)

    def _read(self, _module: nn.Module, _args: object, output: object) -> None:
        if self.enabled:
            assert self._h0_residual is not None
            # The residual is kept: gradient checkpointing recomputes the attention without entering the block again.
            self._code = self.irm.encode(self._h0_residual + hidden_state(output))

    def _adder(self, index: int, layer: int) -> Callable[[nn.Module, object, object], object]:
        def add(_module: nn.Module, _args: object, output: object) -> object:
            if not self.enabled or (self.layers is not None and layer not in self.layers):
                return output
            assert self._code is not None
            stream = hidden_state(output)
            vector = self.irm.layer_output(self._code, index)
            for observe in self.observers:
                observe(layer, vector)
            return with_hidden_state(output, stream + (self.strength * vector).to(stream))

        return add


@contextmanager
def inject(
    model: nn.Module,
    irm: "IRM | ControlVector",
    *,
    strength: float = 1.0,
    layers: Iterable[int] | None = None,
) -> Iterator[Injection]:
    """Steer `model` with an IRM or a control vector inside the `with` block.

    Works in forward, backward, generate with a KV cache, under gradient checkpointing and on packed rows. Several may be
    nested: each adds to the stream as it finds it, so an inner one reads what an outer one added. `layers` limits it
    to some of the IRM's layers. Raises InputError where the IRM does not fit, or is injected into this model already.
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"a {type(model).__name__} cannot be injected", "give the transformers model, as base.model")
    if not isinstance(irm, IRM) and not hasattr(irm, "directions"):
        raise InputError(f"a {type(irm).__name__} cannot be injected", "give an IRM, as run.irm, or a ControlVector")
    module = irm if isinstance(irm, IRM) else static_irm(irm).to(next(model.parameters()).device)
    running = _active.setdefault(model, [])
    if any(other is irm for other in running):
        raise InputError("this IRM is injected into this model already", "end the first inject(), or set its strength")
    injection = Injection(model, module, strength, layers)
    running.append(irm)
    try:
        injection._attach()
        yield injection
    finally:
        injection._detach()
        running.remove(irm)


def static_irm(vector: "ControlVector") -> StaticIRM:
    """A control vector as a static IRM at site `block`, where llama.cpp adds it."""
    layers = tuple(sorted(vector.directions))
    irm = StaticIRM(vector.hidden_size, layers, "block")
    with torch.no_grad():
        irm.vectors.copy_(torch.stack([torch.from_numpy(vector.directions[layer]) for layer in layers]))
    return irm.requires_grad_(False)
