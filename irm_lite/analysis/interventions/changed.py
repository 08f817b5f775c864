"""Changes of a steered model, each for as long as a `with` block: an index zeroed, or the IRM's output weighted."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor

from irm_lite.base.architecture import decoder_layers, hidden_state, with_hidden_state

if TYPE_CHECKING:
    from irm_lite.runs.trained import TrainedRun

Where = Literal["irm", "base"]


@contextmanager
def zeroed(run: "TrainedRun", index: int, where: Where) -> Iterator[None]:
    """Inside, the index is zero in what the IRM gives, or in what comes out of the injected blocks."""

    def silenced(vector: Tensor) -> Tensor:
        without = vector.clone()
        without[..., index] = 0
        return without

    if where == "irm":
        with _outputs_through(run, lambda vector, _layer: silenced(vector)):
            yield
        return
    blocks: Any = decoder_layers(run.base.model)

    def silence(_module: object, _args: object, output: object) -> object:
        return with_hidden_state(output, silenced(hidden_state(output)))

    handles = [blocks[layer].register_forward_hook(silence) for layer in run.irm.layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def weighted(run: "TrainedRun", weights: Tensor) -> Iterator[None]:
    """Inside, what the IRM gives is multiplied by `weights` (L, H)."""
    with _outputs_through(run, lambda vector, layer: vector * weights[layer].to(vector)):
        yield


@contextmanager
def _outputs_through(run: "TrainedRun", change: Callable[[Tensor, int], Tensor]) -> Iterator[None]:
    """Inside, the IRM's layer_output is what `change` makes of it and of the layer's place."""
    original = run.irm.layer_output
    run.irm.layer_output = lambda code, layer: change(original(code, layer), layer)  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        del run.irm.layer_output
