"""Factors fitted on by KL(IRM || adapter), in PEFT's own layers: steps in units of what the maps read and of what the IRM adds.

A's entries are small where its inputs are large, and no one rate fits them all. So what is trained is not A but how far it has
moved along the inputs' strongest directions, each divided by the inputs' size along it: a step of s changes a token's A x by about
s, of 1. B moves in units of the size of what the IRM adds in that block. One rate serves both.
"""

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from irm_lite.base.load import Base
from irm_lite.core.types import FloatArray, Progress, unwatched
from irm_lite.steering.adapter import Factors
from irm_lite.vectors.adapter.regression import Regression
from irm_lite.vectors.distil import Fitting
from irm_lite.vectors.teaching import BATCH, Lessons, descend

RATE = 0.02
ENOUGH = 0.01  # of what the IRM does: `auto` stops where twice the rank carries no more than that beyond it
RANKS = (1, 2, 4, 8, 16, 32)


@dataclass(frozen=True)
class Tuned:
    """Factors by GGUF map, and KL(IRM || .) on validation answers, nats a token: the base's, the start's and what was reached; by
    rank, the start's of each that was tried."""

    factors: dict[str, Factors]
    kl_base: float
    kl_start: float
    kl: float
    by_rank: dict[int, float]

    def to_dict(self) -> dict[str, Any]:
        by_rank = {str(rank): value for rank, value in self.by_rank.items()}
        return {"kl_base": self.kl_base, "kl_start": self.kl_start, "kl": self.kl, "kl_start_by_rank": by_rank}


def tune(
    lessons: Lessons,
    starts: Mapping[str, Regression],
    names: Mapping[str, str],
    rank: int | None,
    fitting: Fitting,
    on_progress: Progress = unwatched,
) -> Tuned:
    """`starts`: by GGUF map, of the largest rank that is tried; `names`: the base's own names of the maps; `rank` None: the first
    of RANKS that is enough."""
    kl_base = lessons.held_out_kl()
    with _in_peft(lessons.base, starts, names) as layers:
        chosen, by_rank = (rank, {}) if rank is not None else _chosen(lessons, layers, starts, kl_base, on_progress)
        _keep_ranks(layers, starts, chosen)
        kl_start = lessons.held_out_kl()
        parameters = [each for layer in layers.values() for each in layer.moved()]
        shuffle = random.Random(fitting.seed)
        steps = max(1, round(fitting.epochs * len(lessons.samples) / BATCH))  # no minimum: the start is near already

        def kept() -> dict[str, Factors]:
            return {module: layer.factors(chosen) for module, layer in layers.items()}

        reached, factors = descend(lessons, parameters, RATE, steps, shuffle, kept, on_progress)
    return Tuned(factors, kl_base, kl_start, reached, by_rank)


def _chosen(
    lessons: Lessons, layers: "Mapping[str, _Layer]", starts: Mapping[str, Regression], kl_base: float, on_progress: Progress
) -> tuple[int, dict[int, float]]:
    """The rank from which on another doubling of the start gains too little, and the KL of those that were tried."""
    most = min(len(start.a) for start in starts.values())
    found: dict[int, float] = {}
    ranks = [rank for rank in RANKS if rank <= most]
    for place, rank in enumerate(ranks):
        _keep_ranks(layers, starts, rank)
        found[rank] = lessons.held_out_kl()
        on_progress(place + 1, len(ranks), f"rank {rank}: held-out KL {found[rank]:.3f}")
        if place and found[ranks[place - 1]] - found[rank] < ENOUGH * kl_base:
            return ranks[place - 1], found
    return ranks[-1], found


def _keep_ranks(layers: "Mapping[str, _Layer]", starts: Mapping[str, Regression], rank: int) -> None:
    for module, layer in layers.items():
        layer.start_at(starts[module].a, starts[module].b, rank)


class _Moved(nn.Module):
    """A weight as `start` plus what was moved, in units of its own."""

    start: Tensor
    units: Tensor

    def __init__(self, start: Tensor, units: Tensor) -> None:
        super().__init__()
        self.register_buffer("start", start.clone())
        self.register_buffer("units", units)

    def forward(self, moved: Tensor) -> Tensor:
        return self.start + (moved @ self.units if self.units.dim() else moved * self.units)

    def right_inverse(self, weight: Tensor) -> Tensor:
        return weight.new_zeros(len(weight), len(self.units)) if self.units.dim() else torch.zeros_like(weight)


@dataclass(frozen=True)
class _Layer:
    """One of PEFT's layers, whose factors are reparametrised."""

    a: Any  # its linear layers
    b: Any

    def moved(self) -> Iterator[Tensor]:
        for each in (self.a, self.b):
            yield each.parametrizations.weight.original

    @torch.no_grad()
    def start_at(self, a: FloatArray, b: FloatArray, rank: int) -> None:
        """Of a start's factors the first ranks; nothing else has been moved."""
        for linear, values in ((self.a, a), (self.b, b.T)):
            start = linear.parametrizations.weight[0].start
            rows = torch.zeros_like(start if linear is self.a else start.T)
            rows[:rank] = torch.from_numpy(values[:rank]).to(rows)
            start.copy_(rows if linear is self.a else rows.T)

    @torch.no_grad()
    def factors(self, rank: int) -> Factors:
        a, b = (each.weight.detach().float().cpu().numpy() for each in (self.a, self.b))
        return Factors(a[:rank].copy(), b[:, :rank].copy())


@contextmanager
def _in_peft(base: Base, starts: Mapping[str, Regression], names: Mapping[str, str]) -> Iterator[dict[str, _Layer]]:
    """Within: the base has PEFT's LoRA layers, float32, beside these maps. Afterwards it is as it was."""
    from peft import LoraConfig, get_peft_model

    rank = max(len(start.a) for start in starts.values())
    wanted = LoraConfig(r=rank, lora_alpha=rank, target_modules=[names[module] for module in starts], task_type="CAUSAL_LM")
    peft = get_peft_model(base.model, wanted)
    try:
        yield {module: _layer(base.model.get_submodule(names[module]), start) for module, start in starts.items()}
    finally:
        peft.unload()


def _layer(lora: Any, start: Regression) -> _Layer:
    a, b = lora.lora_A["default"], lora.lora_B["default"]
    units = torch.from_numpy(start.basis / len(start.basis) ** 0.5).to(a.weight)
    size = torch.tensor(float((start.b**2).sum() / len(start.b)) ** 0.5).to(b.weight)
    parametrize.register_parametrization(a, "weight", _Moved(a.weight.detach(), units), unsafe=True)
    parametrize.register_parametrization(b, "weight", _Moved(b.weight.detach(), size), unsafe=True)
    return _Layer(a, b)
