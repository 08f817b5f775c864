"""Whether an IRM can go into a model, and at which layers: asked by PyTorch's hooks and by llama.cpp's callback alike."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from irm_lite.core.errors import InputError
from irm_lite.steering.layers import format_layers

if TYPE_CHECKING:
    from irm_lite.steering.irm import IRM


_PLACES = {"attn": "layer 0's attention", "block": "block 0"}


def require_shape(irm: "IRM", n_layers: int, hidden_size: int) -> None:
    """Raise InputError where the IRM is for another hidden size, or injects a layer that a model of this shape lacks."""
    if irm.hidden_size != hidden_size or irm.layers[-1] >= n_layers:
        raise InputError(
            f"this IRM is for a hidden size of {irm.hidden_size} and layers up to {irm.layers[-1]}, "
            f"the model has {hidden_size} and {n_layers} layers",
            "use the model that it was trained on",
        )


def require_input(irm: "IRM", h0: str) -> None:
    """Raise InputError where the IRM was made for another place than this model has to read its input at."""
    if irm.h0 != h0 and irm.reads == "h0":
        raise InputError(
            f"this IRM reads the stream after {_PLACES[irm.h0]}, this model's is read after {_PLACES[h0]}",
            "use the model that it was trained on",
        )


def require_width(irm: "IRM", read: int | None) -> None:
    """Raise InputError where the blocks' last maps read another width than the IRM's; None: it reads none of them."""
    wanted = irm.options.get("inner")
    if read is not None and read != wanted:
        raise InputError(
            f"this IRM reads {wanted} numbers in each block, this model's last maps read {read}", "use the model it was trained on"
        )


def chosen_layers(irm: "IRM", layers: Iterable[int] | None) -> frozenset[int]:
    """The layers to inject at: these, or all of the IRM's. Raises InputError where the IRM has no output for one of them."""
    chosen = frozenset(irm.layers if layers is None else layers)
    if not chosen <= set(irm.layers):
        wanted = sorted(chosen, key=str)  # of whatever type a caller gave
        raise InputError(f"the IRM has no output for some of the layers {wanted}", f"its layers are {format_layers(irm.layers)}")
    return chosen
