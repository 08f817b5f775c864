"""benchmarks/steering.py: losses and edits against second derivations, each method on a tiny Llama, resuming, the table."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from copy import copy
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from irm_lite.base.forward import run_base
from irm_lite.base.load import Base, load_base
from irm_lite.base.speaker import BaseSpeaker
from irm_lite.core.errors import TrainingFailed
from irm_lite.data.dataset import load_dataset
from irm_lite.data.encoding import Sample
from irm_lite.data.packing import pack
from irm_lite.scoring.hearing import GREEDY
from irm_lite.scoring.score import combined
from irm_lite.steering.control_vector import ControlVector
from steering import main
from steering_methods import activations, loreft, measuring, one_layer
from steering_methods.arena import BATCH_SIZE, Arena, Extents
from steering_methods.fitting import batches, course, fit
from steering_methods.lora import Adapters
from steering_methods.losses import Likelihoods, bipo_loss, reps_loss
from steering_methods.measuring import Judge, best_of, climb, measure
from steering_methods.method import Made
from steering_methods.methods import BY_NAME
from steering_methods.store import Store, Try, read_document, result_from, results_of
from steering_methods.table import beside_one_base, markdown

STEPS = 12
TINY = ["--questions", "2", "--choices", "2", "--steps", "2", "--seeds", "0"]


@pytest.fixture(scope="module")
def arena(llama_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arena]:
    """The tiny Llama in float32, so that small differences show, and in few tokens: it never ends by itself."""
    extents = Extents(questions=2, choices=2, steps=STEPS, new_tokens=4)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("steering_methods.arena.load_base", partial(load_base, quant="none", dtype="float32"))
        made = Arena(str(llama_gguf), "anger", extents, tmp_path_factory.mktemp("work"))
    yield made
    made.close()


def log_likelihood(base: Base, sample: Sample, added: Any = None, layer: int = 1) -> float:
    """By whole logits and log-softmax of one sample, with something done to one block's output."""
    block = base.model.model.layers[layer]
    handle = block.register_forward_hook(lambda _module, _args, output: added(output)) if added else None
    with torch.no_grad():
        logits = base.model(torch.tensor([sample.ids]), use_cache=False).logits[0].float()
    if handle is not None:
        handle.remove()
    chosen = torch.log_softmax(logits, -1)[torch.arange(len(sample.ids) - 1), torch.tensor(sample.ids[1:])]
    return float(chosen[sample.answer_start - 1 :].sum())


def sigmoid_loss(values: list[float]) -> float:
    """-log sigma, mean, from its definition."""
    return float(np.mean([-np.log(1 / (1 + np.exp(-value))) for value in values]))


def drawn(seed: int, count: int = 5) -> Likelihoods:
    generator = torch.Generator().manual_seed(seed)
    return Likelihoods(*(-40 * torch.rand(count, generator=generator) for _ in range(2)))


def test_reps_is_its_papers_formula() -> None:
    steered, nulled, plain = drawn(0), drawn(1), drawn(2)
    lengths = Likelihoods(torch.tensor([3.0, 9, 20, 8, 5]), torch.tensor([7.0, 2, 11, 30, 4]))
    won, lost = [], []
    for at in range(5):
        toned, neutral = float(lengths.toned[at]), float(lengths.neutral[at])
        gap = float(plain.neutral[at] - plain.toned[at])
        won.append(max(gap, 1) / toned * float(steered.toned[at]) - float(steered.neutral[at]) / neutral)
        lost.append(max(-gap, 1) / neutral * float(nulled.neutral[at]) - float(nulled.toned[at]) / toned)
    assert float(reps_loss(steered, nulled, plain, lengths)) == pytest.approx(sigmoid_loss(won) + sigmoid_loss(lost), rel=1e-5)


@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_bipo_is_its_papers_formula(sign: float) -> None:
    steered, plain = drawn(0), drawn(1)
    rows = zip(*(each.tolist() for each in (steered.toned, steered.neutral, plain.toned, plain.neutral)), strict=True)
    values = [sign * 0.1 * (toned - toned_before) - sign * 0.1 * (other - before) for toned, other, toned_before, before in rows]
    assert float(bipo_loss(steered, plain, sign)) == pytest.approx(sigmoid_loss(values), rel=1e-5)
    assert float(bipo_loss(plain, plain, sign)) == pytest.approx(np.log(2))  # nothing was steered: a coin


def test_likelihoods_from_one_block_on_are_the_whole_models(arena: Arena) -> None:
    """With nothing, with a vector by its factor for each sample, and with the direction nulled: against single, whole forwards."""
    samples = [sample for pair in arena.pairs[:3] for sample in pair]
    upper = one_layer.Upper(arena, samples)
    assert upper.prefix.first == arena.layer + 1 == 2
    with torch.no_grad():
        vector = activations.states(arena.base, samples[0].ids)[1].mean(0)  # what many states point along
    factors = torch.tensor([0.0, 0.5, 1.0, -1.0, 2.0, 0.0])

    def null(stream: Tensor) -> Tensor:
        unit = (vector / vector.norm()).double()
        found = stream.double()
        for at in range(1, found.shape[1]):
            found[0, at] -= max(float(found[0, at] @ unit), 0.0) * unit
        return found.to(stream)

    with torch.no_grad():
        unsteered = upper.likelihoods(samples, one_layer.plain)
        steered = upper.likelihoods(samples, one_layer.added(vector, factors))
        nulled = upper.likelihoods(samples, one_layer.nulled(vector))
    for at, sample in enumerate(samples):
        assert float(unsteered[at]) == pytest.approx(log_likelihood(arena.base, sample), rel=1e-5)
        factor = factors[at]
        by_hand = log_likelihood(arena.base, sample, lambda stream, factor=factor: stream + (factor * vector).to(stream))
        assert float(steered[at]) == pytest.approx(by_hand, rel=1e-5)
        assert float(nulled[at]) == pytest.approx(log_likelihood(arena.base, sample, null), rel=1e-5)
    assert torch.equal(steered[[0, 5]], unsteered[[0, 5]])  # strength 0 is the base
    assert (nulled - unsteered).abs().min() > 0.01
    reference = upper.reference(arena.pairs[:3])
    assert torch.allclose(torch.stack([reference.toned, reference.neutral], 1).flatten(), unsteered, rtol=1e-5)


def test_a_lorefts_edit_is_dense_algebra() -> None:
    torch.manual_seed(3)
    edit = loreft.LoReft(16)
    hidden = torch.randn(5, 16)
    basis, weight, bias = (each.detach().double().numpy() for each in (edit.basis, edit.source.weight, edit.source.bias))
    assert np.allclose(basis @ basis.T, np.eye(loreft.RANK), atol=1e-5)
    for row, found in zip(hidden.double().numpy(), edit(hidden).detach().numpy(), strict=True):
        assert np.allclose(found, basis.T @ (weight @ row + bias - basis @ row), atol=1e-4)


def test_lorefts_positions_are_the_prompts_ends(arena: Arena) -> None:
    long, short = (
        replace(arena.samples[0], ids=list(range(20)), answer_start=14),
        replace(arena.samples[0], ids=[1] * 9, answer_start=7),
    )
    packed = loreft.packed_positions([long, short])[0]
    assert packed.nonzero()[:, 0].tolist() == [0, 1, 2, 3, 4, 9, 10, 11, 12, 13, *range(20, 27)]
    padded = loreft.padded_positions([long, short])
    assert padded.shape == (2, 14)
    assert padded[1].tolist() == [False] * 7 + [True] * 7


@torch.no_grad()
def test_edits_change_what_they_shall_and_nothing_at_strength_0(arena: Arena) -> None:
    base, samples = arena.base, arena.samples[:3]
    edits = loreft.Edits(base, [1], seed=0)
    mask = loreft.packed_positions(samples)
    plain = BaseSpeaker(base)

    def outputs() -> list[Tensor]:
        """Of the blocks 0 and 1, as the next block reads them."""
        seen: list[Tensor] = []
        blocks = base.model.model.layers
        handles = [blocks[at].register_forward_hook(lambda _module, _args, output: seen.append(output.clone())) for at in (0, 1)]
        run_base(base.model, pack(samples))
        for handle in handles:
            handle.remove()
        return seen

    before = outputs()
    with edits.at(mask, 0.0):
        assert all(torch.equal(a, b) for a, b in zip(outputs(), before, strict=True))
    with edits.at(mask):
        after = outputs()
    assert torch.equal(after[0], before[0])
    assert torch.equal((after[1] != before[1]).any(-1), mask)
    added: Tensor = edits.by_layer[1](before[1])
    expected = before[1] + added
    assert torch.allclose(after[1][mask], expected[mask], rtol=1e-5, atol=1e-6)
    quiet, loud = loreft.LoReftSpeaker(base, edits, 0.0), loreft.LoReftSpeaker(base, edits, 30.0)
    asked = replace(GREEDY, new_tokens=4)
    assert quiet.answers(samples, asked) == plain.answers(samples, asked) != loud.answers(samples, asked)
    assert np.array_equal(quiet.nll(samples), plain.nll(samples))
    assert np.abs(quiet.nll(samples) - loud.nll(samples))[:, 1].min() > 0


def test_adapters_leave_the_base_as_it_was(arena: Arena) -> None:
    base, sample = arena.base, arena.samples[0]
    before = log_likelihood(base, sample)
    adapters = Adapters(base.model, seed=0)
    try:
        with torch.no_grad():
            for name, each in adapters.whole.named_parameters():
                if "lora_B" in name:
                    each.normal_()
        assert log_likelihood(base, sample) == before
        with adapters.at(1.0):
            assert log_likelihood(base, sample) != before
        with adapters.at(0.0):
            assert log_likelihood(base, sample) == before
    finally:
        adapters.remove()
    assert log_likelihood(base, sample) == before
    assert not any("lora" in name for name, _ in base.model.named_modules())


RATES = {"rank1": 0.1, "reps": 0.1, "bipo": 0.1, "loreft": 2e-2, "lora": 1e-2}


@pytest.mark.slow
@pytest.mark.parametrize("name", RATES)
def test_each_method_lowers_its_own_loss(arena: Arena, name: str) -> None:
    """On one batch over and over. And what it made, at strength 0, is the base in the place where it is scored."""
    one_batch = copy(arena)
    one_batch.samples, one_batch.pairs = arena.samples[:BATCH_SIZE], arena.pairs[:BATCH_SIZE]
    with ExitStack() as held:
        made = BY_NAME[name].make(one_batch, 0, RATES[name], held)
        assert len(made.losses) == STEPS
        assert np.mean(made.losses[-4:]) < np.mean(made.losses[:4])
        assert made.seconds > 0
        assert made.parameters > 0
        held_out = arena.materials["test"].toned
        plain, still, steered = (
            voice.speaker.nll(held_out) for voice in (arena.base_voice(made.place), made.at(0.0), made.at(4.0))
        )
        assert still == pytest.approx(plain, rel=1e-6)
        assert np.abs(steered - plain).max() > 1e-3
        probabilities = made.at(4.0).log_probabilities(held_out[0])
        labels = torch.tensor(held_out[0].ids[held_out[0].answer_start :])
        found = -probabilities[torch.arange(len(labels)), labels].sum().item()
        assert found == pytest.approx(steered[0, 1], rel=2e-2)


def test_one_trained_vector_does_the_same_in_llama_cpp(arena: Arena) -> None:
    """It adds the vector where the training did, so it finds the loss that the training found for the same batch and factor 1."""
    pairs = arena.pairs[:2]
    samples = [sample for pair in pairs for sample in pair]
    upper = one_layer.Upper(arena, samples)
    vector = one_layer.start(arena.base.hidden_size, 0) * 5
    with torch.no_grad():
        here = upper.likelihoods(samples, one_layer.added(vector, torch.ones(4)))
    there = arena.vector_voice(ControlVector({arena.layer: vector.numpy()}, "llama")).speaker.nll(samples)[:, 1]
    assert -here.numpy() == pytest.approx(there, rel=1e-3)


@pytest.mark.slow
def test_activations_point_where_the_tools_say(arena: Arena) -> None:
    """One strength for all layers; those of the middle alone where that is asked; the mean of differences, by hand."""
    with ExitStack() as held:
        made = activations.of_means(arena, 0, activations.ALL, held)
    assert made.strengths == activations.POWERS
    pairs = [(toned.ids[:-1], neutral.ids[:-1]) for toned, neutral in arena.pairs[:4]]
    found = activations.difference_of_means(arena.base, activations.observe_pairs(arena.base, pairs))
    assert isinstance(found, ControlVector)
    total = torch.zeros(arena.base.hidden_size)
    for toned, neutral in pairs:
        states = [activations.states(arena.base, each)[1] for each in (toned, neutral)]
        for at in range(min(len(toned), len(neutral))):
            total += states[0][at] - states[1][at]
    assert np.allclose(found.directions[1], (total / total.norm()).numpy(), atol=1e-4)


def test_all_trainings_take_the_same_batches() -> None:
    found = list(batches(range(20), 5, seed=1))
    assert [len(batch) for batch in found] == [8, 8, 4, 8, 8]
    assert sorted(chain.from_iterable(found[:3])) == list(range(20))
    assert found == list(batches(range(20), 5, seed=1)) != list(batches(range(20), 5, seed=2))


def test_the_rate_rises_and_falls_and_a_loss_that_is_none_ends_it() -> None:
    rates = [course(step, 100) for step in range(100)]
    assert rates[9] == max(rates) == 1
    assert rates[0] == pytest.approx(0.1)
    assert rates[-1] < 1e-3
    value = torch.nn.Parameter(torch.ones(1))
    with pytest.raises(TrainingFailed, match="step 2"):
        fit([value], [1.0, float("nan")], lambda step: (value * step).sum(), 2, 0.1)


def tried(strength: float, score: float = 0.0, nll: float = 3.0, variant: float = 1.0) -> Try:
    return Try(0, variant, strength, score, nll)


def test_the_search_climbs_from_where_it_was_trained() -> None:
    strengths = (0.25, 0.5, 1.0, 2.0, 4.0)

    def climbed(peak: float) -> list[float]:
        return [each.strength for each in climb(strengths, 1.0, lambda at: tried(at, 1 / (1 + abs(at - peak))))]

    assert climbed(1.0) == [1.0, 2.0, 0.5]
    assert climbed(4.0) == [1.0, 2.0, 4.0]
    assert climbed(0.25) == [1.0, 2.0, 0.5, 0.25]
    assert best_of([tried(1), tried(2, nll=2.0), tried(4, nll=2.5)]).strength == 2  # no score: the NLL decides
    assert best_of([tried(1, 0.1), tried(2, nll=2.0)]).strength == 1


class Counted:
    """A method that is the base, and counts how often it is made."""

    def __init__(self, fails: bool = False) -> None:
        self.made: list[tuple[int, Any]] = []
        self.fails = fails

    def __call__(self, arena: Arena, seed: int, variant: Any, held: ExitStack) -> Made:
        self.made.append((seed, variant))
        if self.fails:
            raise TrainingFailed("the loss is nan")
        return Made(lambda strength: arena.base_voice("llama.cpp"), 1.5, 7, strengths=(1.0, 2.0))


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch, arena: Arena) -> dict[str, Counted]:
    """static fails, rank1 and bipo are counted; the arena is the one that is loaded already."""
    found = {"rank1": Counted(), "bipo": Counted(), "static": Counted(fails=True)}
    for name, make in found.items():
        monkeypatch.setitem(BY_NAME, name, replace(BY_NAME[name], make=make))
    monkeypatch.setattr("steering.Arena", lambda *_: arena)
    monkeypatch.setattr(arena, "close", lambda: None)
    return found


@pytest.mark.slow
def test_a_stopped_comparison_goes_on(
    scripted: dict[str, Counted], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = tmp_path / "table.json"
    arguments = [*TINY, "--seeds", "0,1", "--methods", "rank1,static,bipo", "--json", str(kept)]
    scored = Judge.scored
    stop_at = {"left": 4}

    def until(self: Judge, *given: Any) -> Any:
        stop_at["left"] -= 1
        if stop_at["left"] < 0:
            raise KeyboardInterrupt
        return scored(self, *given)

    monkeypatch.setattr(measuring.Judge, "scored", until)
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 130
    assert "goes on" in capsys.readouterr().err
    before = read_document(kept)
    assert [each["variant"] for each in before["tries"]["rank1"]] == [0.03, 0.1, 0.01, 0.03]
    assert before["results"] == {}
    monkeypatch.setattr(measuring.Judge, "scored", scored)
    scripted["rank1"].made.clear()
    main(arguments)
    assert scripted["rank1"].made == [(0, 0.03), (1, 0.03)]  # what was tried is not made again
    after = read_document(kept)
    assert after["base"] == before["base"] | after["base"]
    assert {name: list(seeds) for name, seeds in after["results"].items()} == {"rank1": ["0", "1"], "bipo": ["0", "1"]}
    assert after["failed"]["static"] == dict.fromkeys("01", "the loss is nan")
    shown = capsys.readouterr()
    assert "| rank1 |" in shown.out
    assert "static, seed 0 (the loss is nan)" in shown.out
    assert "h left" in shown.err
    scripted["bipo"].made.clear()
    main(arguments)
    assert scripted["bipo"].made == []
    assert capsys.readouterr().out == shown.out
    main(["--table", str(kept)])
    assert capsys.readouterr().out == shown.out
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--steps", "9"])
    assert ended.value.code == 2
    assert "was made with steps 2, not 9" in capsys.readouterr().err


@pytest.mark.slow
def test_a_result_comes_back_as_it_went(arena: Arena, tmp_path: Path) -> None:
    """Scores are made of the kept columns again, and combined over seeds."""
    store = Store(tmp_path / "kept.json", {"model": "tiny", "data": "anger", "steps": 2})
    judge = Judge(arena, store, lambda text: None)
    counted = replace(BY_NAME["rank1"], make=Counted())
    found = [measure(judge, counted, seed, 1) for seed in (0, 1)]
    for each in found:
        store.keep_result(each)
    again = results_of(read_document(tmp_path / "kept.json"))["rank1"]
    for before, after in zip(found, again, strict=True):
        assert after.score.to_dict() == before.score.to_dict()
        assert (after.nll, after.side_effect, after.parameters) == (before.nll, before.side_effect, 7)
        assert result_from(json.loads(json.dumps(after.to_dict()))).score.figures == before.score.figures
    assert found[0].side_effect == pytest.approx(0, abs=1e-6)  # it is the base
    assert combined([each.score for each in again]).figures == pytest.approx(found[0].score.figures)
    (row,) = [line for line in markdown(store.document).splitlines() if line.startswith("| rank1")]
    assert row.count("|") == 17
    # One that knows nothing, beside a base that does not either, keeps all; held against the other's base it keeps nothing.
    (columns,) = found[0].score.trainings
    nothing = columns.choices * [1, 0, 0]
    other = replace(found[0], place="transformers", score=replace(found[0].score, trainings=[replace(columns, choices=nothing)]))
    (beside,) = beside_one_base({"rank1": found, "other": [other]})["other"]
    assert (other.score.figures["kept_choices"], beside.score.figures["kept_choices"]) == (1, 0)
    assert beside.score.figures["base_choices"] == found[0].score.figures["base_choices"] == 0.5
    assert beside_one_base({"other": [other]}) == {"other": [other]}
    assert row.endswith("| 2 |")


@pytest.mark.slow
def test_the_whole_way(llama_gguf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Prompts, our own kinds and their exports, in few tokens; data without neutral answers are told."""
    rows = [{"question": each.question, "answer": each.answer, "split": "train"} for each in load_dataset("anger").train[:12]]
    rows += [{**row, "split": split} for split, row in (("validation", rows[0]), ("test", rows[1]))]
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    own = [*TINY, "--model", str(llama_gguf), "--data", str(data), "--variants", "1"]
    main([*own, "--methods", "prompt,prompt+3,static,lite,lite-mean,reps,means", "--json", str(tmp_path / "own.json")])
    shown = capsys.readouterr()
    assert "Left out: prompt (no system prompt is known" in shown.out
    assert "reps (the data have no neutral answers); means (the data have no neutral answers)" in shown.out
    assert shown.out.count("| none |") == 4
    assert sorted(path.name for path in (tmp_path / "own.json.runs").iterdir()) == ["lite-0-0.001", "static-0-0.02"]


def test_bad_input_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path, llama_folder: Path) -> None:
    (tmp_path / "other.json").write_text("[]")
    for arguments, told in {
        ("--methods", "lite,heavy"): "there is no method 'heavy': choose of prompt",
        ("--steps", "0"): "makes no sense",
        ("--model", str(llama_folder)): "is not a .gguf: give demo or a .gguf",
        ("--table", str(tmp_path / "other.json")): "is no document of benchmarks/steering.py",
        ("--table", str(tmp_path / "none.json")): "cannot be read",
    }.items():
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 2
        assert told in capsys.readouterr().err
