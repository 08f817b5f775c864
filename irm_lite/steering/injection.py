"""Adds an IRM's outputs to the residual stream by PyTorch hooks, and leaves no trace when it ends.

Site `attn`: the output of self_attn (of the norm behind it in Gemma's blocks) is what the block adds to the residual stream
before its MLP, so a vector added to it arrives in the stream right there. Site `block`: the vector is added to the block's
output, as llama.cpp does it; `lora` adds it to what the block's last map puts out, which goes there.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from irm_lite.base.architecture import block_input, decoder_layers, hidden_state, text_config, with_hidden_state
from irm_lite.base.maps import last_maps, width_read
from irm_lite.base.padded import as_row, as_seen
from irm_lite.base.stream import require_site, stream_of
from irm_lite.core.errors import InputError
from irm_lite.steering.injection_checks import chosen_layers, require_input, require_shape, require_width
from irm_lite.steering.irm import IRM, StaticIRM
from irm_lite.steering.other_base import warn_of_other_base

if TYPE_CHECKING:
    from irm_lite.steering.control_vector import ControlVector

Observer = Callable[[int, Tensor], None]  # called with (layer, the unscaled IRM output (B, T, H))

_active: "WeakKeyDictionary[nn.Module, list[object]]" = WeakKeyDictionary()


class Injection:
    """A running injection. Change `strength`, `enabled` and `layers` between forwards as you like."""

    def __init__(self, model: nn.Module, irm: IRM, strength: float, layers: Iterable[int] | None) -> None:
        blocks = decoder_layers(model)
        require_shape(irm, len(blocks), text_config(model).hidden_size)
        require_site(model, irm.site)
        self.model = model
        self._stream = stream_of(model)
        require_input(irm, self._stream.h0)
        self._maps = last_maps(model, irm.layers) if irm.reads == "maps" else []
        require_width(irm, width_read(self._maps) if self._maps else None)
        self.irm = irm
        self.strength = strength
        self.enabled = True
        self._layers = chosen_layers(irm, layers)
        self.observers: list[Observer] = []
        self.compute_dtype: torch.dtype | None = None  # of the IRM's matrix products, where not that of its weights
        self.code: Any = None  # what `encode` made of the newest forward's h0
        self._h0_residual: Tensor | None = None  # what block 0 was called with: h0 without its attention's output
        self._fed = 0
        self._handles: list[Any] = []

    @property
    def layers(self) -> frozenset[int]:
        """The layers where it is added: all of the IRM's (set None), or those that were chosen."""
        return self._layers

    @layers.setter
    def layers(self, chosen: Iterable[int] | None) -> None:
        self._layers = chosen_layers(self.irm, chosen)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Within: nothing is read and nothing added."""
        before, self.enabled = self.enabled, False
        try:
            yield
        finally:
            self.enabled = before

    @contextmanager
    def fed(self) -> Iterator[None]:
        """Within: the IRM's input is what `feed` was given, and layer 0 is not read. May be nested. Keep the backward pass inside
        it too: gradient checkpointing runs forwards again."""
        self._fed += 1
        try:
            yield
        finally:
            self._fed -= 1

    def feed(self, h0: Tensor | None, stream: Tensor | None, first: int) -> Tensor | None:
        """Give the IRM its input h0 (B, T, H), None where its kind reads none; `stream` (B, T, H) is what block `first` would read.

        Returns the stream with what the IRM adds at the layers below `first`, whose blocks will not be run.
        """
        self._encode(stream if h0 is None else h0)
        for index, layer in enumerate(self.irm.layers):
            if stream is not None and layer < first:
                stream = self._added(index, layer, stream)
        return stream

    def _encode(self, h0: Tensor | None) -> None:
        self.code = None
        if h0 is None:  # a kind without input, and all blocks are run: the hook of block 0 gives it a shape
            return
        dtype = self.compute_dtype
        with torch.autocast(h0.device.type, dtype) if dtype is not None else nullcontext():
            self.code = self.irm.encode(h0)

    def _attach(self) -> None:
        blocks: Any = decoder_layers(self.model)
        keep = self._handles.append
        for index, (layer, module) in enumerate(zip(self.irm.layers, self._maps, strict=False)):
            keep(module.register_forward_hook(self._beside(index, layer)))
        if self._maps:
            return
        if self._stream.attn:
            keep(blocks[0].register_forward_pre_hook(self._enter, with_kwargs=True))
            keep(self._stream.attention(blocks[0]).register_forward_hook(self._read))  # before layer 0's own injection
        else:
            keep(blocks[0].register_forward_hook(self._read))
        for index, layer in enumerate(self.irm.layers):
            module = self._stream.attention(blocks[layer]) if self.irm.site == "attn" else blocks[layer]
            keep(module.register_forward_hook(self._adder(index, layer)))

    def _detach(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._h0_residual = self.code = None

    def _enter(self, _module: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Any]) -> None:
        self._h0_residual = block_input(args, kwargs)

    def _read(self, _module: nn.Module, _args: object, output: object) -> None:
        if self.enabled and (not self._fed or self.code is None):
            h0 = hidden_state(output)
            if self._stream.attn:
                assert self._h0_residual is not None
                h0 = self._h0_residual + (h0 if self._stream.multiplier == 1 else h0 * self._stream.multiplier)
            self._encode(as_row(self.model, h0))

    def _adder(self, index: int, layer: int) -> Callable[[nn.Module, object, object], object]:
        def add(_module: nn.Module, _args: object, output: object) -> object:
            if not self.enabled or layer not in self._layers:
                return output
            factor = self._stream.multiplier if self.irm.site == "attn" else 1.0
            return with_hidden_state(output, self._added(index, layer, hidden_state(output), factor))

        return add

    def _beside(self, index: int, layer: int) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
        """For a kind that reads in each layer what its last map does."""

        def add(_module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
            if not self.enabled or layer not in self._layers:
                return output
            vector = self.irm.layer_output(args[0], index)
            for observe in self.observers:
                observe(layer, as_row(self.model, vector))
            return output + (self.strength * vector).to(output)

        return add

    def _added(self, index: int, layer: int, stream: Tensor, multiplied_by: float = 1.0) -> Tensor:
        """`stream` with what the IRM adds at this layer; what the block will multiply is divided before."""
        assert self.code is not None
        vector = self.irm.layer_output(self.code, index)
        for observe in self.observers:
            observe(layer, vector)
        return stream + as_seen(self.model, (self.strength / multiplied_by * vector).to(stream))


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
    to some of the IRM's layers. Raises InputError where the IRM does not fit, or is injected into this model already;
    warns (OtherBaseWarning) where a run's IRM or an exported vector was made on other weights, or quantised otherwise.

    >>> from irm_lite import load_run
    >>> run = load_run("runs/anger")
    >>> question = run.base.tokenizer("Why is the sky blue?", return_tensors="pt")
    >>> plain = run.base.model(**question).logits
    >>> with inject(run.base.model, run.irm) as injection:
    ...     steered = run.base.model(**question).logits
    ...     injection.strength = 0.0  # any time between forwards
    ...     unsteered = run.base.model(**question).logits
    >>> bool((steered != plain).any()), bool((unsteered == plain).all())
    (True, True)
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
    warn_of_other_base(model, irm)
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
