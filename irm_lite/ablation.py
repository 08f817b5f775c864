"""Does an index matter? Zero it, in the IRM's output or in the base's residual stream, and measure; then zero others."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from irm_lite.analysis.statistics.causality import MEASURES, AblationEffect, effect_against_controls
from irm_lite.analysis.statistics.checks import require_index_range, require_seed
from irm_lite.analysis.statistics.ranking import importance
from irm_lite.architecture import decoder_layers, hidden_state, with_hidden_state
from irm_lite.chat_format import Sample
from irm_lite.errors import DataError, InputError
from irm_lite.evaluation import kl, log_probabilities, neutral_samples
from irm_lite.injection import inject
from irm_lite.packing import pack, rows
from irm_lite.types import DoubleArray, Progress

if TYPE_CHECKING:
    from irm_lite.trained import TrainedRun

Where = Literal["irm", "base"]
LEAST_CONTROLS = 100
MATCHED = 20
_ROW_TOKENS = 2048  # 4-bit weights are unpacked once a row


@dataclass(frozen=True)
class Ablation:
    """One index at one place: the effects on each of MEASURES, against random and against matched indices."""

    index: int
    where: Where
    random: dict[str, AblationEffect]
    matched: dict[str, AblationEffect]
    matched_indices: list[int]

    def to_list(self) -> list[dict[str, Any]]:
        """A flat record for each measure and kind of control."""
        return [
            {
                "index": self.index,
                "where": self.where,
                "measure": measure,
                "unit": "nats a token",
                "controls_kind": kind,
                **effect.to_dict(),
            }
            for kind, effects in (("random", self.random), ("matched", self.matched))
            for measure, effect in effects.items()
        ]


def ablate(
    run: "TrainedRun",
    indices: Sequence[int],
    mean_abs: DoubleArray,
    *,
    where: Where = "irm",
    controls: int = LEAST_CONTROLS,
    samples: int = 12,
    seed: int = 0,
    on_progress: Progress = lambda done, of, what: None,
) -> list[Ablation]:
    """Zero each index at all injected layers at once and measure what changes on held-out answers, in nats a token.

    `where` is "irm": in what the IRM adds; "base": in the residual stream that comes out of those blocks, the IRM being on.
    The measures are the change of the NLL of the run's own held-out answers, that of the neutral answers, and the
    KL(IRM || IRM with the ablation) on the run's own. Controls are `controls` random indices (all others, if there are
    fewer), and the MATCHED ones nearest in importance, by `mean_abs` (L, H), the recorded mean |output|. Raises InputError
    where an index is out of range.
    """
    indices = list(dict.fromkeys(indices))
    require_index_range(indices, run.irm.hidden_size)
    require_seed(seed)
    others = np.setdiff1d(np.arange(run.irm.hidden_size), indices)
    if controls < LEAST_CONTROLS:
        raise InputError(f"{controls} control indices are too few", f"give at least {LEAST_CONTROLS}")
    if samples < 2:
        raise InputError(f"{samples} samples are too few", "give at least 2")
    rank = importance(mean_abs)
    drawn = np.random.default_rng(seed).choice(others, min(controls, len(others)), replace=False).tolist()
    matched = {index: others[np.argsort(np.abs(rank[others] - rank[index]), kind="stable")[:MATCHED]].tolist() for index in indices}
    wanted = list(dict.fromkeys([*indices, *drawn, *(each for near in matched.values() for each in near)]))
    aligned, neutral = run.held_out[:samples], neutral_samples(run)[:samples]
    if len(aligned) < 2 or len(neutral) < 2:
        raise DataError("there are fewer than 2 held-out samples", "give a larger dataset")
    with torch.no_grad():
        before = _Before(run, aligned, neutral)
        changes = {}
        for done, index in enumerate(wanted, 1):
            changes[index] = before.changes(index, where)
            on_progress(done, len(wanted), f"ablating in the {where}")
    found = []
    for index in indices:
        effects = {}
        for kind, chosen in (("random", drawn), ("matched", matched[index])):
            effects[kind] = {
                measure: effect_against_controls(
                    changes[index][number], before.sizes[number], np.stack([changes[each][number] for each in chosen]), seed=seed
                )
                for number, measure in enumerate(MEASURES)
            }
        found.append(Ablation(index, where, effects["random"], effects["matched"], matched[index]))
    return found


class _Before:
    """The injected model as it is, on the samples; `changes` measures it again."""

    def __init__(self, run: "TrainedRun", aligned: list[Sample], neutral: list[Sample]) -> None:
        self._run = run
        groups = [*rows(aligned, _ROW_TOKENS), *rows(neutral, _ROW_TOKENS)]
        self._rows = [(pack(group), [each.n_answer for each in group]) for group in groups]
        with inject(run.base.model, run.irm):
            self._log_probs = [log_probabilities(run.base, row, None).cpu() for row, _ in self._rows]
        of_aligned, of_neutral = (np.array([float(each.n_answer) for each in part]) for part in (aligned, neutral))
        self.sizes = [of_aligned, of_neutral, of_aligned]  # of each of MEASURES

    def changes(self, index: int, where: Where) -> list[DoubleArray]:
        """For each of MEASURES the sums over each sample, (N,), with the index zeroed."""
        nlls: list[float] = []
        divergences: list[float] = []
        run, n = self._run, len(self.sizes[0])
        with inject(run.base.model, run.irm), zeroed(run, index, where):  # in this order: the IRM's own part is zeroed too
            for (row, sizes), then in zip(self._rows, self._log_probs, strict=True):
                now, labels = log_probabilities(run.base, row, None).cpu(), row["labels"]
                change = F.nll_loss(now, labels, reduction="none") - F.nll_loss(then, labels, reduction="none")
                nlls += [float(each.sum()) for each in torch.split(change, sizes)]
                divergences += [float(each.sum()) for each in torch.split(kl(then, now), sizes)]
        return [np.array(nlls[:n]), np.array(nlls[n:]), np.array(divergences[:n])]


@contextmanager
def zeroed(run: "TrainedRun", index: int, where: Where) -> Iterator[None]:
    """Inside, the index is zero in what the IRM gives, or in what comes out of the injected blocks."""
    if where == "irm":
        original = run.irm.layer_output

        def without(code: Tensor, layer: int) -> Tensor:
            vector = original(code, layer).clone()
            vector[..., index] = 0
            return vector

        run.irm.layer_output = without  # type: ignore[method-assign,assignment]
        try:
            yield
        finally:
            del run.irm.layer_output
        return
    blocks: Any = decoder_layers(run.base.model)

    def silence(_module: object, _args: object, output: object) -> object:
        stream = hidden_state(output).clone()
        stream[..., index] = 0
        return with_hidden_state(output, stream)

    handles = [blocks[layer].register_forward_hook(silence) for layer in run.irm.layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
