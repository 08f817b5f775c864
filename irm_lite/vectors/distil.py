"""Static vectors fitted to the IRM-injected model: KL(IRM || vectors) over the training prompts' answer positions.

The IRM's mean is no export (docs/log.md): what the vectors do together, layer on layer, differs from what each does, and
an IRM at site `attn` adds before the MLP what a control vector can only add after it.
"""

import random
from dataclasses import dataclass

import torch
from torch import Tensor

from irm_lite.base.load import Base
from irm_lite.core.errors import InputError
from irm_lite.core.types import Progress, unwatched
from irm_lite.data.encoding import Sample
from irm_lite.steering.injection import inject
from irm_lite.steering.irm import IRM, StaticIRM
from irm_lite.vectors.mean import DependentShare, block_directions, observe
from irm_lite.vectors.teaching import BATCH, Lessons, descend, lesson_rows

# By the IRM's site. At `block` the mean is near already, and larger steps lead away from it; at `attn` it is far
# (docs/log.md).
LEARNING_RATES = {"attn": 0.02, "block": 0.005}
MIN_STEPS = 40
# `auto` keeps the mean where, on held-out answers, KL(IRM || mean) is at most this share of KL(IRM || base): fitting would gain
# less than that at the cost of half a training (docs/log.md).
ENOUGH = 0.03
MAX_SAMPLES = 2000  # what is kept of the teacher stays below 0.5 GB for a 7B model and short answers


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
    lessons = Lessons(base, train, taught.hidden, lesson_rows(base, validation, observe(base, irm, validation).hidden))
    mean = block_directions(taught.mean, irm, base.n_layers)
    student = StaticIRM(base.hidden_size, layers, "block").to(base.model.device)
    student.mask(irm.masked)
    with torch.no_grad():
        student.vectors.copy_(torch.stack([mean[layer] for layer in layers]))
    kl_base = lessons.held_out_kl()
    with inject(base.model, student):
        kl_mean, vectors = lessons.held_out_kl(), student.vectors.detach().clone()
        fitted = kl_mean > fitting.enough * kl_base
        if fitted:
            steps = max(MIN_STEPS, round(fitting.epochs * len(train) / BATCH))

            def kept() -> Tensor:
                return student.vectors.detach().clone()

            _, vectors = descend(lessons, student.parameters(), LEARNING_RATES[irm.site], steps, shuffle, kept, on_progress)
    return Distilled(dict(zip(layers, vectors, strict=True)), taught.dependent_share, kl_base, kl_mean, fitted)
