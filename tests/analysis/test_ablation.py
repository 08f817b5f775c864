"""Ablations, where the truth is planted: an IRM of which a single index does everything."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from irm_lite import train
from irm_lite.analysis import ablation
from irm_lite.analysis.ablation import MATCHED, Ablation, AblationSettings
from irm_lite.analysis.interventions import zeroings
from irm_lite.analysis.interventions.changed import Where, zeroed
from irm_lite.analysis.interventions.measured import Changes, Measured
from irm_lite.analysis.statistics.causality import MEASURES
from irm_lite.analysis.subsets import keep_and_drop
from irm_lite.config import TrainConfig
from irm_lite.core.errors import InputError
from irm_lite.core.types import DoubleArray
from irm_lite.runs.trained import TrainedRun, neutral_samples
from irm_lite.steering.injection import inject

PLANTED = 17


@pytest.fixture(scope="module")
def run(llama_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    """A static IRM that moves index 17 alone."""
    config = TrainConfig(model=str(llama_folder), irm="static", quant="none", dtype="float32", max_steps=1, sample_tokens=0)
    trained = train(config, tmp_path_factory.mktemp("runs") / "planted")
    vectors = trained.irm.vectors
    assert isinstance(vectors, Tensor)
    with torch.no_grad():
        vectors.zero_()
        vectors[:, PLANTED] = 3.0
    return trained


def ablate(run: TrainedRun, indices: list[int], mean_abs: DoubleArray, **settings: int) -> list[Ablation]:
    return ablation.ablate(run, indices, mean_abs, AblationSettings(**settings))  # type: ignore[arg-type]


def log_probs(run: TrainedRun, ids: list[int], start: int) -> Tensor:
    """At the answer's positions, (A, V), one sample alone."""
    with torch.no_grad():
        return F.log_softmax(run.base.model(torch.tensor([ids])).logits[0, start - 1 : -1].double(), -1)


@pytest.mark.slow
def test_what_the_planted_index_does_is_all_there_is(run: TrainedRun) -> None:
    mean_abs = run.irm.vectors.abs().double().numpy() + 1e-3  # type: ignore[operator]
    found = ablate(run, [PLANTED], mean_abs, samples=5)[0]
    changes: dict[str, list[float]] = {name: [] for name in MEASURES}
    sizes = dict.fromkeys(MEASURES, 0)
    for measure, samples in ((MEASURES[0], run.held_out[:5]), (MEASURES[1], neutral_samples(run)[:5])):
        for sample in samples:
            labels = torch.tensor(sample.ids[sample.answer_start :])
            with inject(run.base.model, run.irm):
                steered = log_probs(run, sample.ids, sample.answer_start)
            plain = log_probs(run, sample.ids, sample.answer_start)
            changes[measure].append(
                float(F.nll_loss(plain, labels, reduction="sum") - F.nll_loss(steered, labels, reduction="sum"))
            )
            sizes[measure] += len(labels)
            if measure == MEASURES[0]:
                changes[MEASURES[2]].append(float((steered.exp() * (steered - plain)).sum()))
                sizes[MEASURES[2]] += len(labels)
    for measure in MEASURES:
        effect = found.random[measure]
        assert effect.effect == pytest.approx(sum(changes[measure]) / sizes[measure], abs=1e-4)
        assert (effect.controls, effect.rank, effect.p) == (63, 1, 1 / 64)
        assert abs(effect.control_median) < 1e-6  # zeroing what is zero changes nothing
        assert found.matched[measure].controls == MATCHED
    assert PLANTED not in found.matched_indices


def test_without_random_controls_the_matched_ones_say_the_same(run: TrainedRun) -> None:
    mean_abs = run.irm.vectors.abs().double().numpy()  # type: ignore[operator]
    with_random, alone = (ablate(run, [PLANTED], mean_abs, samples=3, controls=count)[0] for count in (100, 0))
    assert (alone.matched, alone.sharpness) == (with_random.matched, with_random.sharpness)
    assert {row["controls_kind"] for row in alone.to_list()} == {"matched"}
    [few] = ablate(run, [PLANTED], mean_abs, samples=3, controls=0, matched=2)
    assert few.matched_indices == alone.matched_indices[:2]
    with pytest.raises(InputError, match="sets have no matched indices"):
        keep_and_drop(run, [("drop", 1)], mean_abs, AblationSettings(samples=3, controls=0))


def test_a_control_that_breaks_the_model_counts_as_larger(run: TrainedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """Zeroing a loud channel with the norms held gives NaN; one among the controls lost what was measured of the index."""
    mean_abs = run.irm.vectors.abs().double().numpy()  # type: ignore[operator]
    sound = ablate(run, [PLANTED], mean_abs, samples=3, controls=0)[0]
    broken, zeroing = set(sound.matched_indices[:3]), [-1]
    known = Measured.changes

    def remembered(run: TrainedRun, index: int, where: Where) -> AbstractContextManager[None]:
        zeroing[0] = index
        return zeroed(run, index, where)

    def changes(self: Measured, change: AbstractContextManager[None], sharp: bool = False) -> Changes | None:
        return None if zeroing[0] in broken else known(self, change, sharp)

    monkeypatch.setattr(zeroings, "zeroed", remembered)
    monkeypatch.setattr(Measured, "changes", changes)
    found = ablate(run, [PLANTED], mean_abs, samples=3, controls=0)[0]
    assert found.matched_indices[:MATCHED] == sound.matched_indices  # then three more, in the broken ones' place
    for measure in MEASURES:
        one = found.matched[measure]
        assert (one.effect, one.controls, one.broken) == (sound.matched[measure].effect, MATCHED + 3, 3)
        assert (one.rank, one.p) == (4, 4 / (MATCHED + 4))
    broken.add(PLANTED)
    with pytest.raises(InputError, match=f"with index {PLANTED} zeroed the model puts out NaN"):
        ablate(run, [PLANTED], mean_abs, samples=3, controls=0)
    broken.remove(PLANTED)
    broken.update(set(range(64)) - {PLANTED})
    with pytest.raises(InputError, match="NaN with any other like it zeroed"):
        ablate(run, [PLANTED], mean_abs, samples=3, controls=0)


@pytest.mark.slow
def test_a_silent_index_is_no_better_than_chance(run: TrainedRun) -> None:
    mean_abs = run.irm.vectors.abs().double().numpy() + 1e-3  # type: ignore[operator]
    found = ablate(run, [3], mean_abs, samples=3)[0]
    assert found.random[MEASURES[0]].p > 0.9


def test_in_the_base_the_stream_itself_is_zero_after_the_irm(run: TrainedRun) -> None:
    seen: list[Tensor] = []
    blocks = run.base.model.model.layers
    handles = [block.register_forward_pre_hook(lambda _module, args: seen.append(args[0])) for block in blocks]
    handles.append(run.base.model.model.norm.register_forward_pre_hook(lambda _module, args: seen.append(args[0])))
    ids = torch.tensor([[5, 9, 300, 17]])
    with torch.no_grad(), inject(run.base.model, run.irm), zeroed(run, PLANTED, "base"):
        run.base.model(ids)
    for handle in handles:
        handle.remove()
    assert run.irm.layers == (1, 2)
    assert all(bool(stream[..., PLANTED].any()) for stream in seen[:2])  # the embedding, and block 0's output
    assert not any(bool(stream[..., PLANTED].any()) for stream in seen[2:])
    assert not any(block._forward_hooks for block in blocks)


def test_an_ablation_leaves_no_trace(run: TrainedRun) -> None:
    ids = torch.tensor([[5, 9, 300, 17]])

    def logits() -> Tensor:
        with torch.no_grad(), inject(run.base.model, run.irm):
            found: Tensor = run.base.model(ids).logits
            return found

    before = logits()
    for where in ("irm", "base"):
        with pytest.raises(ZeroDivisionError), zeroed(run, PLANTED, where):
            raise ZeroDivisionError
        torch.testing.assert_close(logits(), before, rtol=0, atol=0)
    assert "layer_output" not in vars(run.irm)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"indices": [64]}, "there is no index 64: the hidden size is 64: give 0 to 63"),
        ({"indices": [-1]}, "there is no index -1"),
        ({"indices": [*range(63)]}, "63 of 64 indices leave none to be held against: zero fewer at once"),
        ({"controls": 99}, "99 control indices are too few: give at least 100, or 0 for the matched ones alone"),
        ({"matched": 1}, "1 matched indices are too few: give at least 2"),
        ({"samples": 1}, "1 samples are too few: give at least 2"),
    ],
)
def test_what_cannot_be_done_is_refused(run: TrainedRun, options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        ablate(run, **{"indices": [1], "mean_abs": np.ones((2, 64)), **options})
