"""RMSNorm's denominators: sqrt(mean(x^2) + eps), by which each norm that reads the residual stream divides it.

A channel of the stream can reach the logits in two ways: through what reads it (its gains and the columns of the matrices behind
them), and through the denominators, in which it counts for every other channel as well. To hold the denominators fixed is to
leave the first way alone.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from irm_lite.base.architecture import decoder_layers
from irm_lite.core.errors import BaseModelError

FINAL = "final norm"


def stream_norms(model: nn.Module) -> dict[str, nn.Module]:
    """The norms that read the residual stream, by name, in the order of the forward pass; the last is FINAL.

    Raises BaseModelError where one of them is not an RMSNorm before attention or MLP.
    """
    norms: dict[str, nn.Module] = {}
    for number, block in enumerate(decoder_layers(model)):
        norms[f"block {number}, attention"] = getattr(block, "input_layernorm", None)  # type: ignore[assignment]
        norms[f"block {number}, MLP"] = getattr(block, "post_attention_layernorm", None)  # type: ignore[assignment]
    norms[FINAL] = getattr(model.model, "norm", None)  # type: ignore[assignment]
    sandwiched = any(hasattr(block, "pre_feedforward_layernorm") for block in decoder_layers(model))
    if sandwiched or not all("RMSNorm" in type(each).__name__ for each in norms.values()):
        raise BaseModelError(
            f"{type(model).__name__} does not read its residual stream through two RMSNorms a block",
            "the split into direct and scale part is made for Llama, Mistral, Qwen2 and Qwen3 models",
        )
    return norms


@contextmanager
def recorded(norms: Mapping[str, nn.Module]) -> Iterator[dict[str, Tensor]]:
    """Within: the denominators (B, T, 1) of the newest forward, by the norm's name."""
    found: dict[str, Tensor] = {}

    def watch(name: str) -> Any:
        def keep(module: nn.Module, args: tuple[Tensor, ...], _output: Tensor) -> None:
            found[name] = denominator(module, args[0]).detach()

        return keep

    handles = [module.register_forward_hook(watch(name)) for name, module in norms.items()]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def held(norms: Mapping[str, nn.Module], names: Iterable[str], at: Mapping[str, Tensor] | None = None) -> Iterator[None]:
    """Within: the named norms divide by what `recorded` found, whatever they read; without `at` by their own denominators, through
    which no gradient flows then."""

    def hold(name: str) -> Any:
        def replace(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
            own = denominator(module, args[0])
            fixed = own.detach() if at is None else at[name].to(own)
            return (output * (own / fixed)).to(output.dtype)

        return replace

    handles = [norms[name].register_forward_hook(hold(name)) for name in names]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def denominator(norm: Any, stream: Tensor) -> Tensor:
    """(B, T, 1) of a stream (B, T, H); float32 at least."""
    eps = norm.variance_epsilon if hasattr(norm, "variance_epsilon") else norm.eps
    wide = stream if stream.dtype == torch.float64 else stream.float()
    found: Tensor = (wide.square().mean(-1, keepdim=True) + eps).sqrt()
    return found
