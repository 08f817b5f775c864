"""What a model's blocks do with the residual stream, seen on two tokens."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from irm_lite.base.architecture import block_input, decoder_layers, final_norm, hidden_state, text_config
from irm_lite.base.heads import head_of
from irm_lite.core.errors import BaseModelError


class _Seen(Exception):
    """Ends the probe's forward as soon as all has been looked at."""


def probe_attention(model: Any, attention: nn.Module, reads: nn.Module | None, multiplier: float) -> bool:
    """Whether what `reads` is called with in block 0 is exactly (block input + multiplier * attention's output)."""
    if reads is None:
        return False
    seen: dict[str, Tensor] = {}

    def enter(_module: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> None:
        seen["input"] = block_input(args, kwargs)

    def attended(_module: nn.Module, _args: object, output: object) -> None:
        seen["attention"] = hidden_state(output)

    def reached(_module: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> None:
        seen["stream"] = block_input(args, kwargs)
        raise _Seen

    handles = [
        decoder_layers(model)[0].register_forward_pre_hook(enter, with_kwargs=True),
        attention.register_forward_hook(attended),
        reads.register_forward_pre_hook(reached, with_kwargs=True),
    ]
    with _removed(handles):
        _run(model)
    if seen.keys() != {"input", "attention", "stream"}:
        return False
    added = seen["attention"] if multiplier == 1 else seen["attention"] * multiplier
    return torch.equal(seen["input"] + added, seen["stream"])


def probe_chain(model: Any, whole: bool) -> None:
    """Raise BaseModelError unless a block reads what the one before it put out; of the `whole` model too that the last one's goes
    through the norm and the head, and nowhere else."""
    blocks, name = decoder_layers(model), type(model).__name__
    seen: dict[str, Tensor] = {}
    norm = final_norm(model) if whole else None

    def left(_module: nn.Module, _args: object, output: object) -> None:
        seen["last"] = hidden_state(output)

    def entered(_module: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> None:
        if "last" in seen and not torch.equal(seen["last"], block_input(args, kwargs)):
            raise BaseModelError(f"a block of {name} does not read what the one before it puts out", "choose another model")
        if not whole and "last" in seen:
            raise _Seen

    def normed(_module: nn.Module, args: tuple[Tensor, ...], output: object) -> None:
        seen["read"], seen["normed"] = args[0], hidden_state(output)

    handles: list[Any] = [block.register_forward_hook(left) for block in blocks]
    handles += [block.register_forward_pre_hook(entered, with_kwargs=True) for block in blocks]
    handles += [norm.register_forward_hook(normed)] if norm is not None else []
    with _removed(handles):
        output = _run(model)
    if not whole or output is None:
        return
    if "read" not in seen or not torch.equal(seen["last"], seen["read"]):
        raise BaseModelError(f"the norm of {name} does not read what its last block puts out", "choose another model")
    with torch.no_grad():
        logits = head_of(model)(seen["normed"])
    if not torch.allclose(logits.float(), output.logits.float(), rtol=1e-3, atol=1e-3):
        raise BaseModelError(f"the logits of {name} are not its head's", "choose another model")


@torch.no_grad()
def _run(model: Any) -> Any:
    """The model's output for two tokens; None where a hook has seen enough."""
    config = text_config(model)
    device = next(model.parameters()).device
    hidden = torch.linspace(-1, 1, 2 * config.hidden_size, dtype=model.dtype, device=device)
    try:
        return model(inputs_embeds=hidden.view(1, 2, -1), use_cache=False)
    except _Seen:
        return None


@contextmanager
def _removed(handles: list[Any]) -> Iterator[None]:
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
