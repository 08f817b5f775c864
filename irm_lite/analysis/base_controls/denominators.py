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

from irm_lite.analysis.statistics.channels import FINAL
from irm_lite.base.architecture import decoder_layers, final_norm, module_of
from irm_lite.base.stream import stream_of
from irm_lite.core.errors import BaseModelError


def stream_norms(model: nn.Module) -> dict[str, nn.Module]:
    """The norms that read the residual stream, by name, in the order of the forward pass; the last is FINAL.

    Of a block that reads it without a norm (OLMo 2, EXAONE 4, whose norms are of what attention and MLP put out) there are none.
    Raises BaseModelError where one of them is no RMSNorm, or attention and MLP run side by side.
    """
    stream = stream_of(model)
    before = stream.attn_norm
    has_norms = stream.known is None or bool(stream.known.norms)
    norms: dict[str, nn.Module] = {}
    sound = bool(stream.attn)
    for number, block in enumerate(decoder_layers(model)):
        found = {"attention": module_of(block, before) if before else None, "MLP": module_of(block, stream.reads)}
        if not before and has_norms and stream.reads == "mlp":
            continue
        sound &= all(each is not None and is_rms_norm(each) for each in found.values())
        norms |= {f"block {number}, {what}": each for what, each in found.items() if each is not None}
    norms[FINAL] = final_norm(model)
    if not sound or not is_rms_norm(norms[FINAL]):
        raise BaseModelError(
            f"{type(model).__name__} does not read its residual stream through RMSNorms before attention and MLP",
            "there are no denominators to tell its direct part from, or to hold",
        )
    return norms


@torch.no_grad()
def is_rms_norm(norm: nn.Module) -> bool:
    """Whether it multiplies x / sqrt(mean(x^2) + eps) by a gain of each index and does nothing else: seen on three tokens, not
    read from its name."""
    weight = getattr(norm, "weight", None)
    if not isinstance(weight, Tensor) or weight.dim() != 1 or _eps(norm) is None:
        return False
    drawn = torch.randn(3, weight.numel(), generator=torch.Generator().manual_seed(0)) + 0.5  # a mean, which LayerNorm takes away
    tokens = (drawn * torch.tensor([[0.1], [1.0], [30.0]])).to(weight)
    reached = norm.forward(tokens[None])[0].float() * denominator(norm, tokens)  # and no hook is called
    gains = (reached * tokens.float()).sum(0) / tokens.float().square().sum(0)
    close = 1e-3 if weight.dtype in (torch.float32, torch.float64) else 3e-2
    return bool((reached - gains * tokens.float()).norm() <= close * reached.norm())


def _eps(norm: Any) -> float | None:
    found = getattr(norm, "variance_epsilon", getattr(norm, "eps", None))
    return found if isinstance(found, float) else None


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
    wide = stream if stream.dtype == torch.float64 else stream.float()
    found: Tensor = (wide.square().mean(-1, keepdim=True) + (_eps(norm) or 0.0)).sqrt()
    return found
