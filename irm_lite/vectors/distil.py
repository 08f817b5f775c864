"""Static vectors fitted to the IRM-injected model: KL(IRM || vectors) over the training prompts' answer positions.

The IRM's mean is no export (docs/log.md): what the vectors do together, layer on layer, differs from what each does, and
an IRM at site `attn` adds before the MLP what a control vector can only add after it.
Only the teacher's final hidden states are kept, (A, H) a sample; its logits are one matrix product away.
"""

import random
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from irm_lite.base.forward import answer_hidden, packed
from irm_lite.base.heads import head_of
from irm_lite.base.load import Base
from irm_lite.core.errors import InputError
from irm_lite.core.types import Progress, unwatched
from irm_lite.data.encoding import Sample
from irm_lite.data.packing import Row, rows
from irm_lite.steering.injection import inject
from irm_lite.steering.irm import IRM, StaticIRM
from irm_lite.steering.likelihood import kl
from irm_lite.vectors.mean import DependentShare, block_directions, observe

BATCH = 8  # samples a step
# By the IRM's site. At `block` the mean is near already, and larger steps lead away from it; at `attn` it is far
# (docs/log.md).
LEARNING_RATES = {"attn": 0.02, "block": 0.005}
MIN_STEPS = 40
# `auto` keeps the mean where, on held-out answers, KL(IRM || mean) is at most this share of KL(IRM || base): fitting would gain
# less than that at the cost of half a training (docs/log.md).
ENOUGH = 0.03
MAX_SAMPLES = 2000  # what is kept of the teacher stays below 0.5 GB for a 7B model and short answers
EVALUATIONS = 5


@dataclass(frozen=True)
class Fitting:
    """How long vectors are fitted, and in which order. Raises InputError where the epochs make no sense."""

    epochs: float = 2.0
    seed: int = 0  # of the samples' order
    enough: float = 0.0  # the mean is kept as it is where it loses at most this share of what the IRM does

    def __post_init__(self) -> None:
        if not 0 < self.epochs <= 1000:
            raise InputError(f"--epochs {self.epochs} makes no sense", "give a number above 0, at most 1000")


@dataclass
class Distilled:
    """The directions {block: (H,)}, and what share of the IRM's output varies with the input. `kl_base`, `kl_mean`: KL(IRM || .)
    on held-out answers, nats a token."""

    directions: dict[int, Tensor]
    dependent_share: DependentShare
    kl_base: float
    kl_mean: float
    fitted: bool  # or the mean was kept

    @property
    def lost(self) -> float:
        """What the mean loses of what the IRM does, as a share; 0 of an IRM that does nothing."""
        return self.kl_mean / self.kl_base if self.kl_base > 0 else 0.0


def distil(
    base: Base,
    irm: IRM,
    train: list[Sample],
    validation: list[Sample],
    layers: tuple[int, ...],
    fitting: Fitting,
    on_progress: Progress = unwatched,
) -> Distilled:
    """Fit vectors at the outputs of these blocks to the IRM. They start at the mean, which is kept where it is good enough; those
    best on `validation` are returned."""
    shuffle = random.Random(fitting.seed)
    train = shuffle.sample(train, min(len(train), MAX_SAMPLES))
    taught = observe(base, irm, train, on_progress)
    held_out = _lessons(base, validation, observe(base, irm, validation).hidden)
    mean = block_directions(taught.mean, irm, base.n_layers)
    student = StaticIRM(base.hidden_size, layers, "block").to(base.model.device)
    student.mask(irm.masked)
    with torch.no_grad():
        student.vectors.copy_(torch.stack([mean[layer] for layer in layers]))
    steps = max(MIN_STEPS, round(fitting.epochs * len(train) / BATCH))
    kl_base = _mean_kl(base, held_out)
    optimiser = torch.optim.Adam(student.parameters(), lr=LEARNING_RATES[irm.site])
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    order: list[int] = []
    with inject(base.model, student):
        best_kl = kl_mean = _mean_kl(base, held_out)
        best = student.vectors.detach().clone()
        found = Distilled({}, taught.dependent_share, kl_base, kl_mean, fitted=kl_mean > fitting.enough * kl_base)
        if not found.fitted:
            return replace(found, directions=dict(zip(layers, best, strict=True)))
        for step in range(1, steps + 1):
            while len(order) < BATCH:
                order += shuffle.sample(range(len(train)), len(train))
            chosen, order = order[:BATCH], order[BATCH:]
            row = packed(base.model, [train[number] for number in chosen])
            loss = _kl(base, row, torch.cat([taught.hidden[number] for number in chosen])).mean()
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
            if step % max(1, steps // EVALUATIONS) == 0 or step == steps:
                now = _mean_kl(base, held_out)
                if now < best_kl:
                    best_kl, best = now, student.vectors.detach().clone()
            on_progress(step, steps, f"held-out KL {best_kl:.3f}")
    return replace(found, directions=dict(zip(layers, best, strict=True)))


def _lessons(base: Base, samples: list[Sample], hidden: list[Tensor]) -> list[tuple[Row, Tensor]]:
    """Packed rows with the teacher's hidden states (A, H) at their answer positions."""
    lessons, remaining = [], iter(hidden)
    for group in rows(samples):
        lessons.append((packed(base.model, group), torch.cat([next(remaining) for _ in group])))
    return lessons


def _kl(base: Base, row: Row, teacher: Tensor) -> Tensor:
    """KL(teacher || the model as it is injected) at each answer position, (A,)."""
    head = head_of(base.model)
    with torch.no_grad():
        target = F.log_softmax(head(teacher).float(), dim=-1)
    return kl(target, F.log_softmax(head(answer_hidden(base.model, row)).float(), dim=-1))


@torch.no_grad()
def _mean_kl(base: Base, lessons: list[tuple[Row, Tensor]]) -> float:
    return float(torch.cat([_kl(base, row, teacher) for row, teacher in lessons]).mean())
