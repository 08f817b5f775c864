"""Training moves the IRM alone, learns, resumes as if it had never stopped, and reports what it does."""

import json
import math
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from irm_lite.base.architecture import decoder_layers
from irm_lite.base.load import load_base
from irm_lite.config import KINDS, Kind, TrainConfig
from irm_lite.core.errors import DataError, InputError, Interrupted, RanOut, RunError, TrainingFailed
from irm_lite.data.dataset import Example, load_dataset
from irm_lite.data.encoding import encode_all
from irm_lite.runs import trained
from irm_lite.runs.checkpoints import Checkpoints
from irm_lite.runs.directory import RunDirectory
from irm_lite.runs.trained import load_run
from irm_lite.steering.injection import inject
from irm_lite.steering.irm import build_irm
from irm_lite.steering.irm_files import load_irm
from irm_lite.training import train as training
from irm_lite.training.checkpointing_trainer import page_again
from irm_lite.training.divergence import steps_far_above
from irm_lite.training.nll import mean_nll
from irm_lite.training.setup import disk_space
from irm_lite.training.setup import prepare as preparing
from irm_lite.training.step import injected_model
from irm_lite.training.step.answer_loss import answer_nll
from irm_lite.training.step.injected_model import InjectedModel, varying_share
from irm_lite.vectors.mean import observe
from support.kinds import read_by
from support.same_run import events, result

Event = dict[str, Any]


def config(folder: Path, **changes: Any) -> TrainConfig:
    settings: dict[str, Any] = {
        "model": str(folder),
        "quant": "none",
        "dtype": "float32",
        "device": "cpu",
        "max_steps": 6,
        "batch_size": 4,
        "irm": "lite",
        "rank": 4,
        "eval_steps": 2,
        "sample_tokens": 0,
    }
    return TrainConfig(**{**settings, **changes})


@pytest.mark.slow
@pytest.mark.parametrize("quant", ["nf4", "none"])
def test_only_the_irm_moves(llama_folder: Path, tmp_path: Path, quant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bases = []

    def keep(*args: Any, **options: Any) -> Any:
        base = load_base(*args, **options)
        bases.append((base, {name: tensor.detach().clone() for name, tensor in base.model.state_dict().items()}))
        return base

    monkeypatch.setattr(trained, "load_base", keep)
    run = training.train(config(llama_folder, quant=quant, learning_rate=0.01), tmp_path / "run")
    [(base, before)] = bases
    assert all(not parameter.requires_grad and parameter.grad is None for parameter in base.model.parameters())
    after = base.model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(tensor, before[name]) for name, tensor in after.items())
    assert run.irm.state_dict()["up"].abs().max() > 0  # the zero-initialised factor has moved
    assert not any(module._forward_hooks for module in base.model.modules())


def test_nf4_gives_gradients_after_a_forward_without_them(llama_folder: Path) -> None:
    """bitsandbytes' AVX512 inference layout, which has no backward, must never be entered."""
    base = load_base(str(llama_folder), quant="nf4", device="cpu")
    ids = torch.arange(3, 20)[None]
    gradients = []
    for _ in range(2):
        embedded = base.model.get_input_embeddings()(ids).detach().requires_grad_(True)
        base.model(inputs_embeds=embedded).logits.float().square().mean().backward()
        gradients.append(embedded.grad)
        with torch.no_grad():
            base.model(ids)
    assert gradients[0].abs().max() > 0
    assert torch.equal(gradients[0], gradients[1])


@pytest.mark.slow
def test_it_learns_and_the_best_irm_is_kept(llama_folder: Path, tmp_path: Path) -> None:
    events: list[Event] = []
    settings = config(llama_folder, max_steps=40, eval_steps=10, learning_rate=0.02, batch_size=8, dependence_penalty=0.0)
    trained = training.train(settings, tmp_path / "run", on_event=events.append)
    evaluations = [event["nll"] for event in events if event["kind"] == "eval"]
    assert min(evaluations[1:]) < evaluations[0] - 0.4  # the random base knows nothing: unigrams alone give more than this
    with inject(trained.base.model, trained.irm):
        samples, _ = encode_all(trained.base.tokenizer, trained.dataset.validation, settings.max_length)
        assert mean_nll(trained.base, samples) == pytest.approx(min(evaluations[1:]), abs=1e-4)
    again = load_run(tmp_path / "run")
    assert all(torch.equal(a, b) for a, b in zip(again.irm.parameters(), trained.irm.parameters(), strict=True))


@pytest.mark.slow
def test_a_resumed_run_ends_where_the_uninterrupted_one_does(llama_folder: Path, tmp_path: Path) -> None:
    settings = config(llama_folder, max_steps=8, eval_steps=2, gradient_accumulation_steps=2, num_train_epochs=1)
    training.train(settings, tmp_path / "whole")
    seen: list[Event] = []

    def steps() -> int:
        return sum(event["kind"] == "step" for event in seen)

    with pytest.raises(Interrupted) as stop:
        training.train(settings, tmp_path / "broken", on_event=seen.append, should_stop=lambda: steps() >= 4)
    assert stop.value.exit_code == 130
    assert steps() == 5  # the step in progress is finished
    training.resume(tmp_path / "broken")
    whole, broken = (load_file(tmp_path / name / "checkpoints" / "step-8" / "irm.safetensors") for name in ("whole", "broken"))
    assert all(torch.equal(whole[name], broken[name]) for name in whole)
    best_whole, best_broken = (load_file(tmp_path / name / "irm.safetensors") for name in ("whole", "broken"))
    assert all(torch.equal(best_whole[name], best_broken[name]) for name in best_whole)


class Died(BaseException):
    """A process that is gone: nothing of ours may catch it and go on."""


def whole_and_broken(settings: TrainConfig, folder: Path, *deaths: int) -> tuple[Path, Path]:
    """A training, and one that dies after so many events each time, before it is resumed to its end."""
    training.train(settings, folder / "whole")
    left = 0

    def live(_event: Event) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise Died

    for after in deaths:
        left = after
        with pytest.raises(Died):
            if RunDirectory(folder / "broken").started():
                training.resume(folder / "broken", on_event=live)
            else:
                training.train(settings, folder / "broken", on_event=live)
    training.resume(folder / "broken")
    return folder / "whole", folder / "broken"


def same(whole: Path, broken: Path) -> bool:
    assert result(whole).keys() == result(broken).keys()
    assert [name for name, content in result(whole).items() if result(broken)[name] != content] == []
    assert events(whole, warned=True) == events(broken, warned=True)
    return True


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "deaths"),
    [
        ({"eval_steps": 5, "save_steps": 3, "sample_tokens": 3}, (14, 8)),
        (
            {
                "layers": "2",
                "site": "attn",
                "irm": "paper",
                "eval_steps": 4,
                "save_steps": 6,
                "learning_rate": 1e-3,
                "mask_indices": "5",
            },
            (15, 12),
        ),
        ({"layers": "1-2", "optim": "adamw_bnb_8bit", "gradient_accumulation_steps": 2, "save_steps": 5}, (22,)),
        (
            {
                "irm": "static",
                "layers": "2",
                "irm_dtype": "bfloat16",
                "save_steps": 1,
                "lr_scheduler_type": "linear",
                "mask_indices": "5,9",
            },
            (5, 30),
        ),
    ],
)
def test_a_training_that_dies_is_resumed_to_the_same_bits(
    llama_folder: Path, tmp_path: Path, changes: dict[str, Any], deaths: tuple[int, ...]
) -> None:
    """Over three epochs, whose samples come in other company: what of the frozen prefix is computed must not depend on that."""
    few = tmp_path / "few.jsonl"
    samples = load_dataset("anger")
    rows = [("train", each) for each in samples.train[:19]] + [("validation", each) for each in samples.validation[:4]]
    few.write_text("\n".join(json.dumps({"question": each.question, "answer": each.answer, "split": name}) for name, each in rows))
    settings = config(llama_folder, data=str(few), **{"max_steps": 15, "learning_rate": 0.05, **changes})
    whole, broken = whole_and_broken(settings, tmp_path, *deaths)
    assert same(whole, broken)
    assert sum(event["kind"] == "start" for event in RunDirectory(broken).events.read()) == len(deaths) + 1


@pytest.mark.slow
def test_patience_is_counted_over_a_death(llama_folder: Path, tmp_path: Path) -> None:
    settings = config(llama_folder, learning_rate=1e-12, max_steps=40, eval_steps=1, early_stopping_patience=4, irm="static")
    whole, broken = whole_and_broken(settings, tmp_path, 10)
    assert same(whole, broken)
    assert list(RunDirectory(broken).events.read())[-1]["reason"] == "no more improvement"


@pytest.mark.slow
@pytest.mark.parametrize("patience", [0, 2])
def test_a_training_that_dies_at_its_end_takes_no_further_step(llama_folder: Path, tmp_path: Path, patience: int) -> None:
    """Once with the last checkpoint's event lost, too."""
    rate = 1e-12 if patience else 0.01
    settings = config(llama_folder, learning_rate=rate, max_steps=6, eval_steps=2, early_stopping_patience=patience, irm="static")
    training.train(settings, tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "broken")
    log = tmp_path / "broken" / "events.jsonl"
    log.write_text("".join(log.read_text().splitlines(keepends=True)[:-2]))
    training.resume(tmp_path / "broken")
    training.resume(tmp_path / "broken")
    assert same(tmp_path / "whole", tmp_path / "broken")
    kinds = [event["kind"] for event in RunDirectory(tmp_path / "broken").events.read()]
    assert kinds[-4:] == ["checkpoint", "end", "start", "end"]


@pytest.mark.slow
def test_the_best_irm_is_put_back_to_what_the_checkpoint_knows_of(llama_folder: Path, tmp_path: Path) -> None:
    """Validated at 2 and 4, saved at 3: what died after 4 offers the IRM of 4, the resumed one that of 2 until it comes by."""
    settings = config(llama_folder, max_steps=5, eval_steps=2, save_steps=3, learning_rate=0.02)
    irms: dict[int, bytes] = {}
    run = tmp_path / "run"

    def keep(event: Event) -> None:
        if event["kind"] == "step" and event["step"] in (3, 5):
            irms[event["step"] - 1] = (run / "irm.safetensors").read_bytes()
        if event["kind"] == "step" and event["step"] == 5:
            raise Died

    with pytest.raises(Died):
        training.train(settings, run, on_event=keep)
    assert irms[2] != irms[4] == (run / "irm.safetensors").read_bytes()
    with pytest.raises(Died):
        training.resume(run, on_event=lambda event: (_ for _ in ()).throw(Died))
    assert (run / "irm.safetensors").read_bytes() == irms[2]
    training.resume(run)
    assert load_run(run).irm


@pytest.mark.slow
def test_a_split_of_the_rows_outlives_a_death(llama_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is short only until the death: the rows stay as they were, and with them the last bits."""
    forward, tight, sizes = injected_model.InjectedModel.forward, [True], []

    def short(model: Any, samples: Any, num_items: Any = None) -> torch.Tensor:
        sizes.append(len(samples))
        if tight[0] and len(samples) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(model, samples, num_items)

    monkeypatch.setattr(injected_model.InjectedModel, "forward", short)

    def die(event: Event) -> None:
        if event["kind"] == "checkpoint":
            raise Died

    with pytest.raises(Died):
        training.train(config(llama_folder), tmp_path / "run", on_event=die)
    sizes.clear()
    tight[0] = False
    training.resume(tmp_path / "run")
    assert sizes == [2] * 8


@pytest.mark.slow
def test_checkpoints_come_by_minutes_too(llama_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Clock:
        now = 0.0

        @classmethod
        def monotonic(cls) -> float:
            cls.now += 1e-3
            return cls.now

    def tick(event: Event) -> None:
        Clock.now += 30 * (event["kind"] == "step")

    monkeypatch.setattr("irm_lite.training.reporter.time", Clock)
    settings = config(llama_folder, max_steps=9, eval_steps=4, save_steps=4, save_minutes=1.0)
    training.train(settings, tmp_path / "run", on_event=tick)
    saved = [event["step"] for event in RunDirectory(tmp_path / "run").events.read() if event["kind"] == "checkpoint"]
    assert saved == [3, 4, 7, 8, 9]  # a minute is over in the third step after each


@pytest.mark.slow
def test_accumulated_rows_give_the_gradient_of_one_large_row(llama_folder: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"max_steps": 1, "eval_steps": 1, "irm": "paper", "l1": 0.0}
    training.train(config(llama_folder, batch_size=8, **options), tmp_path / "one")
    training.train(config(llama_folder, batch_size=4, gradient_accumulation_steps=2, **options), tmp_path / "two")
    losses = [next(e for e in RunDirectory(tmp_path / name).events.read() if e["kind"] == "step") for name in ("one", "two")]
    assert losses[0]["loss"] == pytest.approx(losses[1]["loss"], rel=1e-5)
    assert losses[0]["grad_norm"] == pytest.approx(losses[1]["grad_norm"], rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["paper", "lite"])
def test_an_irm_in_bfloat16_trains_resumes_and_is_read_as_float32(llama_folder: Path, tmp_path: Path, kind: Any) -> None:
    options: dict[str, Any] = {"irm": kind, "irm_dtype": "bfloat16", "max_steps": 8, "eval_steps": 4}
    options["learning_rate"] = {"paper": 1e-3, "lite": 0.03}[kind]
    whole = training.train(config(llama_folder, **options), tmp_path / "whole")
    weights = load_file(tmp_path / "whole" / "irm.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}
    assert {parameter.dtype for parameter in whole.irm.parameters()} == {torch.float32}
    events = list(RunDirectory(tmp_path / "whole").events.read())
    nll = [event["nll"] for event in events if event["kind"] == "eval"]
    assert nll[-1] < nll[0] - 0.02
    samples, _ = encode_all(whole.base.tokenizer, load_dataset("anger").validation, 512)
    with inject(whole.base.model, whole.irm):
        assert mean_nll(whole.base, samples) == pytest.approx(min(nll[1:]), abs=2e-3)
    shutil.rmtree(tmp_path / "whole" / "checkpoints" / "step-8")
    training.resume(tmp_path / "whole")
    again = load_file(tmp_path / "whole" / "checkpoints" / "step-8" / "irm.safetensors")
    assert all(torch.equal(again[name], weights[name]) for name in again)


@pytest.mark.slow
@pytest.mark.parametrize("fails", ["forward", "backward"])
def test_a_step_that_runs_out_of_memory_is_taken_in_more_rows(
    llama_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    options: dict[str, Any] = {"max_steps": 3, "eval_steps": 3, "irm": "paper", "l1": 0.0, "batch_size": 8}
    training.train(config(llama_folder, **options), tmp_path / "enough")
    forward, sizes = injected_model.InjectedModel.forward, []

    def tight(model: Any, samples: Any, num_items: Any = None) -> torch.Tensor:
        """No more than three samples fit: the second row of a step fails, too, once the first has left its gradients."""
        sizes.append(len(samples))
        loss = forward(model, samples, num_items)
        if len(samples) > 3 and fails == "forward":
            raise torch.OutOfMemoryError("CUDA out of memory")
        if len(samples) > 3:
            loss.register_hook(fail)  # type: ignore[no-untyped-call]
        return loss

    def fail(_gradient: torch.Tensor) -> None:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(injected_model.InjectedModel, "forward", tight)
    seen: list[Event] = []
    training.train(config(llama_folder, **options), tmp_path / "tight", on_event=seen.append)
    assert sizes == [8, 4, *[2] * 12]
    told = [event["text"] for event in seen if event["kind"] == "warning"]
    assert [text.split(" in ")[1] for text in told if text.startswith("memory ran out")] == ["2 rows", "4 rows"]
    enough = [event for event in RunDirectory(tmp_path / "enough").events.read() if event["kind"] in ("step", "eval")]
    for one, other in zip(enough, [event for event in seen if event["kind"] in ("step", "eval")], strict=True):
        for name in {"loss", "nll", "grad_norm"} & one.keys():
            assert other[name] == pytest.approx(one[name], rel=1e-4)
        assert one.get("tokens") == other.get("tokens")


@pytest.mark.parametrize("step", ["load_base_of", "mean_nll"])
@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("std::bad_alloc")])
def test_memory_that_is_short_before_the_first_step_is_told(
    llama_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, error: Exception
) -> None:
    def short(*_: object) -> None:
        raise error

    monkeypatch.setattr(preparing if step == "load_base_of" else training, step, short)
    with pytest.raises(RanOut, match="memory ran out"):
        training.train(TrainConfig(irm="lite", model=str(llama_folder), quant="none", device="cpu"), tmp_path / "run")
    assert not (tmp_path / "run" / "run.toml").exists()


def test_memory_that_is_short_even_for_one_sample_ends_the_training(
    llama_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: Any, **__: Any) -> torch.Tensor:
        raise RuntimeError("MPS backend out of memory (MPS allocated: 6.00 GB)")

    monkeypatch.setattr(injected_model.InjectedModel, "forward", none)
    with pytest.raises(RanOut, match="memory ran out"):
        training.train(config(llama_folder), tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "site", "layers"),
    [("lite", "block", "1-2"), ("lite", "attn", "2"), ("paper", "attn", "0-2"), ("static", "attn", "0-2")],
)
def test_the_kept_prefix_changes_nothing_that_is_learned(
    llama_folder: Path, tmp_path: Path, kind: Any, site: Any, layers: str
) -> None:
    """Three epochs, so that samples come again in other company."""
    options: dict[str, Any] = {"irm": kind, "site": site, "layers": layers, "max_steps": -1, "num_train_epochs": 3.0}
    options["learning_rate"] = 0.01
    losses = []
    for cached in (True, False):
        run = tmp_path / str(cached)
        training.train(config(llama_folder, cache_prefix=cached, batch_size=32, eval_steps=7, **options), run)
        losses.append([event[name] for event in RunDirectory(run).events.read() for name in ("loss", "nll") if name in event])
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    assert losses[0][-1] < losses[0][0] - 0.01


def test_the_papers_penalty_is_added_as_its_formula_says(llama_folder: Path) -> None:
    base = load_base(str(llama_folder), quant="none", dtype="float32", device="cpu")
    irm = build_irm("static", base.hidden_size, (0, 2))
    vectors = irm.state_dict()["vectors"].normal_()
    samples, _ = encode_all(base.tokenizer, load_dataset("anger").train[:3], 512)
    with torch.no_grad(), inject(base.model, irm) as injection:
        plain, penalised = (InjectedModel(base, injection, l1)(samples) for l1 in (0.0, 0.3))
        halves = [InjectedModel(base, injection, 0.3)(part, num_items=200) for part in (samples[:1], samples[1:])]
        whole = InjectedModel(base, injection, 0.3)(samples, num_items=200)
    expected = 0.3 / 2 * float(vectors.abs().sum())  # l1 / L * sum |v|, the same for every token here
    assert float(penalised - plain) == pytest.approx(expected, rel=1e-5)
    assert float(sum(halves)) == pytest.approx(float(whole), rel=1e-5)  # accumulated rows share one penalty


def test_the_share_that_varies_is_a_variance_over_a_second_moment() -> None:
    vectors = torch.randn(50, 7, dtype=torch.float64) * 3 + torch.arange(7)
    expected = vectors.var(0, correction=0).sum() / vectors.square().mean(0).sum()

    def share(vectors: torch.Tensor) -> float:
        return float(varying_share(vectors.mean(0)[None], vectors.var(0, correction=0).sum()[None]))

    assert share(vectors) == pytest.approx(float(expected), rel=1e-5)
    assert share(torch.ones(4, 3)) == 0
    assert share(1e-4 * torch.randn(4, 3)) < 1e-3  # an output that does nothing yet is left alone


@pytest.mark.parametrize("kind", KINDS)
def test_moments_are_those_of_the_outputs(kind: Kind) -> None:
    irm = build_irm(kind, 24, (0, 2, 3), "block", **read_by(kind, 24))
    with torch.no_grad():
        for parameter in irm.parameters():
            parameter.normal_()
    code = irm.encode(torch.randn(1, 9, 24))
    outputs = irm.outputs(code)[0].double()  # (T, L, H)
    means, spreads = irm.moments(code)
    torch.testing.assert_close(means.double(), outputs.mean(0), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(spreads.double(), outputs.var(0, correction=0).sum(-1), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_the_penalty_on_dependence_makes_the_output_depend_less(llama_folder: Path, tmp_path: Path) -> None:
    shares = []
    for penalty in (0.0, 2.0):
        settings = config(llama_folder, max_steps=20, eval_steps=20, learning_rate=0.02, dependence_penalty=penalty)
        run = training.train(settings, tmp_path / str(penalty))
        samples, _ = encode_all(run.base.tokenizer, load_dataset("anger").test[:8], 512)
        shares.append(float(observe(run.base, run.irm, samples).dependent_share.overall))
    assert shares[1] < 0.5 * shares[0]


@pytest.mark.slow
def test_run_directory_and_events_are_as_designed(llama_folder: Path, tmp_path: Path) -> None:
    seen: list[Event] = []
    run = tmp_path / "run"
    training.train(config(llama_folder, layers="1-2", site="block", sample_tokens=4), run, on_event=seen.append)
    assert list(RunDirectory(run).events.read()) == seen
    assert [event["step"] for event in seen if event["kind"] == "step"] == [1, 2, 3, 4, 5, 6]
    assert {event["kind"] for event in seen} - {"warning"} == {"start", "eval", "step", "sample", "text", "checkpoint", "end"}
    assert {"irm.safetensors", "irm.json", "run.toml", "base.json", "events.jsonl", "live.safetensors", "checkpoints"} <= {
        path.name for path in run.iterdir()
    }
    assert not [path for path in run.rglob("*") if path.suffix in (".pt", ".pth", ".bin", ".pkl")]
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["step-4", "step-6"]  # save_total_limit 2
    irm = load_irm(run)
    assert (irm.layers, irm.site) == ((1, 2), "block")
    assert load_file(run / "live.safetensors")["mean_abs"].shape == (2, 64)
    assert json.loads((run / "base.json").read_text())["n_layers"] == 3


@pytest.mark.slow
def test_gradient_checkpointing_trains_to_the_same_irm_and_is_switched_off_again(llama_folder: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"irm": "paper", "l1": 0.1, "sample_tokens": 12}  # the penalty too must survive recomputation
    plain = training.train(config(llama_folder, **options), tmp_path / "plain")
    saving = training.train(config(llama_folder, **options, gradient_checkpointing=True), tmp_path / "saving")
    for a, b in zip(plain.irm.parameters(), saving.irm.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-4)
    logs = [RunDirectory(tmp_path / name).events.read() for name in ("plain", "saving")]
    texts = [[event["text"] for event in log if event["kind"] == "sample"] for log in logs]
    assert texts[0] == texts[1] != []  # generation keeps its KV cache
    assert not any(layer.training or layer.gradient_checkpointing for layer in decoder_layers(saving.base.model))


def test_early_stopping_ends_before_the_steps_do(llama_folder: Path, tmp_path: Path) -> None:
    settings = config(llama_folder, learning_rate=1e-12, max_steps=40, eval_steps=1, early_stopping_patience=3, irm="static")
    training.train(settings, tmp_path / "run")
    end = list(RunDirectory(tmp_path / "run").events.read())[-1]
    assert (end["kind"], end["reason"]) == ("end", "no more improvement")
    assert end["step"] < 40


def test_a_loss_that_is_not_finite_stops_with_advice(llama_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(head: Any, hidden: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        steps.extend([1] if torch.is_grad_enabled() else [])  # validation runs without gradients
        return answer_nll(head, hidden, labels, weights) * (math.nan if len(steps) == 3 else 1.0)

    steps: list[int] = []
    monkeypatch.setattr(injected_model, "answer_nll", broken)
    with pytest.raises(TrainingFailed, match="--learning-rate") as failure:
        training.train(config(llama_folder, eval_steps=6), tmp_path / "run")
    assert failure.value.exit_code == 1
    assert list(RunDirectory(tmp_path / "run").events.read())[-1]["reason"] == "the loss became nan at step 3"


def poisoned(loss: torch.Tensor) -> torch.Tensor:
    loss.register_hook(lambda gradient: gradient * math.nan)  # type: ignore[no-untyped-call]
    return loss


def raised(loss: torch.Tensor) -> torch.Tensor:
    return loss + 1e6


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spoil", "told"),
    [(poisoned, "the gradient's norm became nan at step 6"), (raised, "the training diverges: by step 24 the loss")],
)
def test_a_training_that_diverges_ends_at_its_last_good_state(
    llama_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: Any, told: str
) -> None:
    """From the sixth step or from the fifth on: the gradient is NaN, or the loss huge."""

    def broken(head: Any, hidden: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        loss = answer_nll(head, hidden, labels, weights)
        steps.extend([1] if torch.is_grad_enabled() else [])
        return spoil(loss) if loss.requires_grad and len(steps) >= (6 if spoil is poisoned else 5) else loss

    steps: list[int] = []
    monkeypatch.setattr(injected_model, "answer_nll", broken)
    settings = config(llama_folder, max_steps=30, eval_steps=4, save_steps=3, early_stopping_patience=0)
    with pytest.raises(TrainingFailed, match="--learning-rate below 0.001") as failure:
        training.train(settings, tmp_path / "run")
    assert failure.value.exit_code == 1
    run = RunDirectory(tmp_path / "run")
    reason = list(run.events.read())[-1]["reason"]
    assert reason.startswith(told)
    assert reason == failure.value.what
    newest = run.checkpoints.newest_sound()
    assert newest is not None
    assert newest.name == "step-3"  # no later one was good
    for folder in (newest, run.path):
        assert all(parameter.isfinite().all() for parameter in load_irm(folder).parameters())


def test_far_above_is_what_guessing_costs_above_the_first() -> None:
    above = 3.0 + math.log(640) + 0.01

    def after(*losses: float, allowance: float = 0.0) -> int:
        history = [{"eval_loss": 99.0}, {"loss": 3.0}, *({"loss": loss} for loss in losses), {"eval_loss": 99.0}]
        return steps_far_above(history, 640, allowance)

    assert after(*[above] * 20) == 20
    assert after(*[above] * 10, 2.0, *[above] * 3) == 3
    assert after(above, above - 0.02) == 0
    assert after(above, allowance=1.0) == 0
    assert steps_far_above([], 640) == 0


# The disk


@pytest.mark.slow
def test_a_disk_without_room_for_the_checkpoints_is_refused_before_anything_is_written(
    llama_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The most that a run ever holds, on a file system without links, with the best IRM of another step beside each."""

    def held(checkpoints: Checkpoints, step: int, keep: int) -> None:
        sizes.append(sum(path.stat().st_size for path in checkpoints.path.parent.rglob("*") if path.is_file()))
        real(checkpoints, step, keep)

    def no_links(*_: object) -> None:
        raise OSError("no links here")

    sizes: list[int] = []
    real = Checkpoints.thin
    monkeypatch.setattr(Checkpoints, "thin", held)
    monkeypatch.setattr(os, "link", no_links)
    settings = config(llama_folder, save_total_limit=2, width=512, max_steps=12, eval_steps=5, save_steps=3)
    run = tmp_path / "run"
    training.train(settings, run)
    weights = (run / "irm.safetensors").stat().st_size
    most = max(sizes) + weights  # and the IRM's next one, while it is written
    found: list[int] = []
    for free in (most - 1, most + disk_space.REST_BYTES + weights):
        monkeypatch.setattr(disk_space, "free_space", lambda _, free=free: free)
        try:
            training.train(settings, tmp_path / f"with {free}")
        except RunError as refused:
            assert "make space" in str(refused)
            assert refused.exit_code == 2
            assert not (tmp_path / f"with {free}").exists()
            found.append(free)
    assert found == [most - 1]
    training.resume(run)  # what is there already needs no more room


def test_a_place_that_cannot_be_written_is_refused_before_the_base_is_loaded(
    llama_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparing, "load_base_of", lambda _: pytest.fail("the base was loaded"))
    with pytest.raises(InputError, match="cannot be written"):
        training.train(config(llama_folder), Path("/proc/run"))


@pytest.mark.slow
def test_a_live_snapshot_that_cannot_be_written_is_a_warning(
    llama_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("irm_lite.training.reporter.save_tensors", full)
    monkeypatch.setattr(injected_model, "LIVE_SECONDS", 0.0)
    training.train(config(llama_folder), tmp_path / "run")
    [warning] = [event["text"] for event in RunDirectory(tmp_path / "run").events.read() if event["kind"] == "warning"]
    assert "live heatmap" in warning
    assert not list((tmp_path / "run").glob("*live*"))


def test_refusals_leave_no_run_directory(llama_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="range"):
        training.train(config(llama_folder, layers="0-3"), tmp_path / "run")
    with pytest.raises(DataError, match="tones are anger"):
        training.train(config(llama_folder, data="rage"), tmp_path / "run")
    with pytest.raises(DataError, match="--max-length"):
        training.train(config(llama_folder, max_length=8), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("precious")
    with pytest.raises(RunError, match="--out"):
        training.train(config(llama_folder), tmp_path / "run")
    assert (tmp_path / "run" / "thesis.txt").read_text() == "precious"


def test_long_samples_are_counted_and_reported(llama_folder: Path, tmp_path: Path) -> None:
    seen: list[Event] = []
    training.train(config(llama_folder, max_length=90, max_steps=1), tmp_path / "run", on_event=seen.append)
    counts = seen[0]["samples"]
    data, tokenizer = load_dataset("anger"), load_base(str(llama_folder), quant="none").tokenizer

    def length(example: Example) -> int:
        text = tokenizer.apply_chat_template(list(example.messages), tokenize=False)
        return len(tokenizer(text.rstrip(), add_special_tokens=False)["input_ids"])

    lengths = {split: [length(each) for each in getattr(data, split)] for split in ("train", "validation", "test")}
    assert counts["train"] == sum(length <= 90 for length in lengths["train"])
    assert counts["validation"] == sum(length <= 90 for length in lengths["validation"])
    assert counts["too_long"] == sum(length > 90 for each in lengths.values() for length in each) > 0
    assert any(event["kind"] == "warning" and str(counts["too_long"]) in event["text"] for event in seen)


def test_the_states_of_a_paged_optimiser_are_paged_again() -> None:
    """bitsandbytes has pages on a GPU alone: a stand-in notes what it is asked for."""
    weight = torch.nn.Parameter(torch.ones(10))
    before = {"step": 3, "state1": torch.arange(10.0), "state2": torch.arange(10, dtype=torch.uint8)}
    asked = []

    class Paged:
        is_paged = True

        def __init__(self) -> None:
            self.state: dict[torch.nn.Parameter, dict[str, Any]] = {weight: dict(before)}

        def get_state_buffer(self, parameter: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
            asked.append((parameter is weight, dtype))
            return torch.zeros(parameter.shape, dtype=dtype)

    optimiser = Paged()
    page_again(optimiser)
    assert sorted(asked, key=str) == [(True, torch.float32), (True, torch.uint8)]
    for name in ("state1", "state2"):
        assert torch.equal(optimiser.state[weight][name], torch.as_tensor(before[name]))
        assert optimiser.state[weight][name] is not before[name]


def test_a_resumed_training_tells_what_is_not_as_it_was(llama_folder: Path, tmp_path: Path) -> None:
    shipped = load_dataset("anger")
    rows = [{"question": each.question, "answer": each.answer, "split": "train"} for each in shipped.train[:12]]
    rows += [{"question": each.question, "answer": each.answer, "split": "validation"} for each in shipped.validation[:4]]
    rows += [{"question": each.question, "answer": each.answer, "split": "test"} for each in shipped.test[:4]]
    data = tmp_path / "data.jsonl"
    data.write_text("\n".join(map(json.dumps, rows)))
    run = tmp_path / "run"
    count: list[int] = []
    with pytest.raises(Interrupted):
        training.train(
            config(llama_folder, data=str(data)),
            run,
            on_event=lambda event: count.extend([1] if event["kind"] == "step" else []),
            should_stop=lambda: len(count) >= 2,
        )
    rows[0], rows[1] = rows[1], rows[0]
    data.write_text("\n".join(map(json.dumps, rows)))
    toml = (run / "run.toml").read_text()
    (run / "run.toml").write_text(re.sub(r'^torch = ".*"$', 'torch = "1.0"', toml, flags=re.MULTILINE))
    before, threads = (run / "events.jsonl").read_text(), torch.get_num_threads()
    (run / "events.jsonl").write_text(before.replace(f'"threads": {threads}', '"threads": 77'))
    training.resume(run)
    told = [event["text"] for event in RunDirectory(run).events.read() if event["kind"] == "warning"]
    assert any("has changed since the run began" in text for text in told)
    assert any("torch 1.0 -> " in text for text in told)
    assert any(f"(threads 77 -> {threads}): its last digits may differ" in text for text in told)
    assert len(told) == 3


@pytest.mark.slow
def test_a_damaged_best_irm_in_a_checkpoint_costs_no_step(llama_folder: Path, tmp_path: Path) -> None:
    """What the run itself offers stays."""
    run = RunDirectory(tmp_path / "run")
    count: list[int] = []
    with pytest.raises(Interrupted):
        training.train(
            config(llama_folder, eval_steps=2, save_steps=3),
            run.path,
            on_event=lambda event: count.extend([1] if event["kind"] == "step" else []),
            should_stop=lambda: len(count) >= 2,
        )
    best = run.checkpoints.of_step(3) / "best" / "irm.safetensors"
    content = bytearray(best.read_bytes())
    content[-1] ^= 1
    best.write_bytes(content)
    before = (run.path / "irm.safetensors").read_bytes()
    assert before != bytes(content)  # a copy: one damage is not two
    training.resume(run.path)
    events_ = list(run.events.read())
    assert [event["resumed_from"] for event in events_ if event["kind"] == "start"] == [None, "step-3"]
    [told] = [event["text"] for event in events_ if event["kind"] == "warning"]
    assert told.startswith("the best IRM in step-3 is damaged")
    assert run.events.finished()
