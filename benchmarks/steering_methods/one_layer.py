"""Methods of one vector at one block's output: a rank-1 vector by the LM loss, RePS, BiPO. They become control vectors.

Rates are in units of the stream's RMS there, so that they transfer to models of other scales; the published ones are absolute (RePS
0.04 and 0.08 on Gemma 2 2B and 9B for factors of 2 to 20, BiPO 5e-4 on Llama 2 7B over twenty epochs).
"""

import random
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from irm_lite.base.forward import answers_of, run_base
from irm_lite.base.heads import head_of
from irm_lite.core.errors import InputError
from irm_lite.data.encoding import Sample
from irm_lite.data.packing import Row, pack
from irm_lite.steering.control_vector import ControlVector
from irm_lite.steering.irm import StaticIRM
from irm_lite.training.step.frozen_prefix import FrozenPrefix, blocks_from
from steering_methods.arena import Arena
from steering_methods.fitting import batches, fit
from steering_methods.losses import Likelihoods, bipo_loss, reps_loss
from steering_methods.method import Made, Variant

FACTORS = tuple(step / 5.5 for step in range(1, 11))  # AxBench's 2, 4, ... 20, brought to a mean of 1
BIPO_DECAY = 0.05
Edit = Callable[[Tensor, Row], Tensor]  # of the block's output (1, T, H)
Pair = tuple[Sample, Sample]  # a question's answer in the tone, and its neutral one
T = TypeVar("T")


class Upper:
    """The base from one block's output on. What lies below is computed once a sample and kept, for these samples."""

    def __init__(self, arena: Arena, samples: Sequence[Sample]) -> None:
        self.model = arena.base.model
        at_layer = StaticIRM(arena.base.hidden_size, (arena.layer,), "block")
        self.prefix = FrozenPrefix(self.model, at_layer)
        if self.prefix.first == 0:
            raise InputError(f"{arena.model} has layers of several kinds", "leave out the methods of one layer")
        self.kept = list(samples)  # alive: they are known by identity
        arena.work.mkdir(parents=True, exist_ok=True)
        self.prefix.keep(self.kept, arena.work)
        self._plain: dict[int, tuple[float, float]] = {}  # by identity of a pair's first sample

    def likelihoods(self, samples: list[Sample], edit: Edit) -> Tensor:
        """Log-likelihood of each sample's answer, (B,), with the block's output edited."""
        row = pack(samples)
        stream = self.prefix.states(samples, row)["stream"]
        with blocks_from(self.model, self.prefix.first):
            hidden = answers_of(run_base(self.model, row, edit(stream, row)), row)
        logits = head_of(self.model)(hidden).float()
        found = -F.cross_entropy(logits, row["labels"].to(logits.device), reduction="none")
        return found.new_zeros(len(samples)).index_add(0, row["sample"].to(found.device), found)

    def of_pairs(self, pairs: list[Pair], edit: Edit) -> Likelihoods:
        found = self.likelihoods([sample for pair in pairs for sample in pair], edit)
        return Likelihoods(found[0::2], found[1::2])

    def reference(self, pairs: list[Pair]) -> Likelihoods:
        """Of the unsteered base; each pair is computed once."""
        new = [pair for pair in pairs if id(pair[0]) not in self._plain]
        if new:
            with torch.no_grad():
                found = self.of_pairs(new, plain)
            rows = torch.stack([found.toned, found.neutral], dim=1).tolist()
            self._plain |= {id(pair[0]): (row[0], row[1]) for pair, row in zip(new, rows, strict=True)}
        both = torch.tensor([self._plain[id(pair[0])] for pair in pairs], device=self.model.device)
        return Likelihoods(both[:, 0], both[:, 1])


def added(vector: Tensor, factors: Tensor) -> Edit:
    """h + f v, with one factor a sample, (B,)."""

    def edit(stream: Tensor, row: Row) -> Tensor:
        by_token = torch.repeat_interleave(factors, row["lengths"]).to(stream.device)[None, :, None]
        return stream + (by_token * vector).to(stream)

    return edit


def nulled(vector: Tensor) -> Edit:
    """h - ReLU(h . v) / |v|^2 v, but at each sample's first token, whose huge state the model leans on (AxBench leaves out the
    bos, too)."""

    def edit(stream: Tensor, row: Row) -> Tensor:
        states = stream.float()
        share = torch.relu(states @ vector) / vector.square().sum().clamp(min=1e-12)
        share = share * (row["position_ids"] > 0).to(share.device)
        return (states - share[..., None] * vector).to(stream)

    return edit


def plain(stream: Tensor, _row: Row) -> Tensor:
    return stream


def rank1(arena: Arena, seed: int, variant: Variant, held: ExitStack) -> Made:
    """LM loss of the tone's answers, with a factor drawn for each."""
    upper = Upper(arena, arena.samples)

    def loss(vector: Tensor, batch: list[Sample], draw: random.Random) -> Tensor:
        found = upper.likelihoods(batch, added(vector, _drawn(draw, len(batch))))
        return -found.sum() / sum(sample.n_answer for sample in batch)

    return _trained(arena, seed, variant, arena.samples, loss)


def reps(arena: Arena, seed: int, variant: Variant, held: ExitStack) -> Made:
    upper = Upper(arena, [sample for pair in arena.pairs for sample in pair])

    def loss(vector: Tensor, pairs: list[Pair], draw: random.Random) -> Tensor:
        factors = _drawn(draw, len(pairs)).repeat_interleave(2)
        steered, without = (upper.of_pairs(pairs, edit) for edit in (added(vector, factors), nulled(vector)))
        return reps_loss(steered, without, upper.reference(pairs), lengths_of(pairs).to(vector.device))

    return _trained(arena, seed, variant, arena.pairs, loss)


def bipo(arena: Arena, seed: int, variant: Variant, held: ExitStack) -> Made:
    upper = Upper(arena, [sample for pair in arena.pairs for sample in pair])

    def loss(vector: Tensor, pairs: list[Pair], draw: random.Random) -> Tensor:
        sign = draw.choice((-1.0, 1.0))
        steered = upper.of_pairs(pairs, added(vector, torch.full((2 * len(pairs),), sign)))
        return bipo_loss(steered, upper.reference(pairs), sign)

    return _trained(arena, seed, variant, arena.pairs, loss, decay=BIPO_DECAY, zero=True)


def _trained(
    arena: Arena,
    seed: int,
    variant: Variant,
    items: Sequence[T],
    loss: Callable[[Tensor, list[T], random.Random], Tensor],
    decay: float = 0.0,
    zero: bool = False,
) -> Made:
    started = time.monotonic()
    vector = nn.Parameter(start(arena.base.hidden_size, seed, zero).to(arena.base.model.device))
    draw, steps = random.Random(seed), arena.extents.steps
    with arena.dequantised():
        losses = fit(
            [vector],
            batches(items, steps, seed),
            lambda batch: loss(vector, batch, draw),
            steps,
            float(variant) * arena.stream_rms,
            decay,
        )
    seconds = time.monotonic() - started
    found = ControlVector({arena.layer: vector.detach().cpu().numpy()}, arena.base.fingerprint.architecture)
    return Made(lambda strength: arena.vector_voice(found, strength), seconds, vector.numel(), losses=losses)


def start(hidden_size: int, seed: int, zero: bool = False) -> Tensor:
    """A short vector in a random direction, since nulling one of no length would mean nothing; or BiPO's zeros."""
    if zero:
        return torch.zeros(hidden_size)
    torch.manual_seed(seed)
    found: Tensor = torch.empty(hidden_size).uniform_(-1, 1) / hidden_size**0.5  # nn.Linear's default, AxBench's start
    return found


def lengths_of(pairs: list[Pair]) -> Likelihoods:
    """Answer tokens, (B,) each."""
    return Likelihoods(*(torch.tensor([float(pair[side].n_answer) for pair in pairs]) for side in (0, 1)))


def _drawn(draw: random.Random, count: int) -> Tensor:
    return torch.tensor([draw.choice(FACTORS) for _ in range(count)])
