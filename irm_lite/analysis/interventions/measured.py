"""The steered model on held-out answers, and what an intervention changes there; with the norms' denominators free, or held."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from irm_lite.analysis.base_controls.denominators import held, recorded, stream_norms
from irm_lite.analysis.statistics.temperature import sharpness
from irm_lite.base.forward import row_of
from irm_lite.core.errors import DataError
from irm_lite.core.log_probabilities import kl
from irm_lite.core.types import DoubleArray
from irm_lite.data.encoding import Sample
from irm_lite.data.packing import pack, rows
from irm_lite.runs.trained import neutral_samples
from irm_lite.steering.injection import inject
from irm_lite.steering.likelihood import log_probabilities

if TYPE_CHECKING:
    from irm_lite.runs.trained import TrainedRun

Held = Literal["free", "steered", "base"]  # the norms' denominators: as they come, or those of the steered model, or of the base
_ROW_TOKENS = 2048  # 4-bit weights are unpacked once a row


@dataclass(frozen=True)
class Changes:
    """Of an intervention. `sums`: for each of MEASURES those over each sample, (N,). `sharpened` (N, 2), where it was asked for:
    sums over the run's own answers of KL(changed || not), and of what a temperature fitted to each token leaves of it."""

    sums: list[DoubleArray]
    sharpened: DoubleArray | None


class Measured:
    """The injected model as it is, on the samples; `changes` measures it again, changed. `norms`: whether the denominators of the
    stream's norms are held, and at what; then before and after alike. Raises BaseModelError where they cannot be."""

    def __init__(self, run: "TrainedRun", aligned: list[Sample], neutral: list[Sample], norms: Held = "free") -> None:
        self._run = run
        groups = [*rows(aligned, _ROW_TOKENS), *rows(neutral, _ROW_TOKENS)]
        self._packed = [(row_of(run.base.model, group), [each.n_answer for each in group]) for group in groups]
        self._norms = {} if norms == "free" else stream_norms(run.base.model)
        self._denominators = self._recorded(steered=norms == "steered") if self._norms else [{} for _ in groups]
        with inject(run.base.model, run.irm):
            self._log_probs = [self._log_probabilities(number) for number in range(len(groups))]
        of_aligned, of_neutral = (np.array([float(each.n_answer) for each in part]) for part in (aligned, neutral))
        self.sizes = [of_aligned, of_neutral, of_aligned]  # of each of MEASURES

    def changes(self, change: AbstractContextManager[None], sharp: bool = False) -> Changes | None:
        """What is otherwise within `change`; with `sharp` how far temperatures explain it, at a few milliseconds a token. None
        where the changed model puts out NaN anywhere: that is found at the first row."""
        nlls: list[float] = []
        divergences: list[float] = []
        sharpened: list[tuple[float, float]] = []
        n = len(self.sizes[0])
        with inject(self._run.base.model, self._run.irm), change:  # in this order: the IRM's own part is changed too
            for number, (row, sizes) in enumerate(self._packed):
                now, then, labels = self._log_probabilities(number), self._log_probs[number], row["labels"]
                change_of_nll = F.nll_loss(now, labels, reduction="none") - F.nll_loss(then, labels, reduction="none")
                if not torch.isfinite(change_of_nll).all():
                    return None
                nlls += [float(each.sum()) for each in torch.split(change_of_nll, sizes)]
                if len(divergences) < n:  # of the neutral answers nobody asks it
                    divergences += [float(each.sum()) for each in torch.split(kl(then, now), sizes)]
                if sharp and len(sharpened) < n:
                    fit = sharpness(then.numpy(), now.numpy())
                    ends = np.cumsum(sizes)[:-1]
                    both = zip(np.split(fit.before, ends), np.split(fit.after, ends), strict=True)
                    sharpened += [(float(before.sum()), float(after.sum())) for before, after in both]
        sums = [np.array(nlls[:n]), np.array(nlls[n:]), np.array(divergences)]
        return Changes(sums, np.array(sharpened[:n]) if sharp else None)

    def _log_probabilities(self, number: int) -> Tensor:
        """(A, V) of a row by the model as it is now, with what the norms are held at."""
        row = self._packed[number][0]
        with held(self._norms, self._norms, self._denominators[number]):
            return log_probabilities(self._run.base, row, None).cpu()

    def _recorded(self, *, steered: bool) -> list[dict[str, Tensor]]:
        """The denominators of each row, by the norm's name."""
        found = []
        for row, _ in self._packed:
            with ExitStack() as stack:
                if steered:
                    stack.enter_context(inject(self._run.base.model, self._run.irm))
                seen = stack.enter_context(recorded(self._norms))
                log_probabilities(self._run.base, row, None)
                found.append(dict(seen))
        return found


def measured_on(run: "TrainedRun", count: int) -> tuple[list[Sample], list[Sample]]:
    """Held-out answers of the run's own data, and neutral ones. Raises DataError where there are too few."""
    aligned, neutral = run.held_out[:count], neutral_samples(run)[:count]
    if len(aligned) < 2 or len(neutral) < 2:
        raise DataError("there are fewer than 2 held-out samples", "give a larger dataset")
    return aligned, neutral


def output_power(run: "TrainedRun", samples: Sequence[Sample]) -> Tensor:
    """Mean square of what the IRM gives over all tokens of the samples, (L, H)."""
    total = torch.zeros(len(run.irm.layers), run.irm.hidden_size, dtype=torch.float64)
    places, tokens = {layer: place for place, layer in enumerate(run.irm.layers)}, 0

    def watch(layer: int, vector: Tensor) -> None:
        total[places[layer]] += vector.flatten(0, -2).double().square().sum(0).cpu()

    with inject(run.base.model, run.irm) as injection:
        injection.observers.append(watch)
        for group in rows(list(samples), _ROW_TOKENS):
            row = pack(group)
            log_probabilities(run.base, row, None)
            tokens += row["input_ids"].numel()
    return total / tokens
