"""Training moves the IRM alone, learns, and reports what it does."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from irm_lite.base.architecture import decoder_layers
from irm_lite.base.load import load_base
from irm_lite.config import KINDS, Kind
from irm_lite.core.errors import DataError, InputError, RunError
from irm_lite.data.dataset import Example, load_dataset
from irm_lite.data.encoding import encode_all
from irm_lite.runs import trained
from irm_lite.runs.directory import RunDirectory
from irm_lite.runs.trained import load_run
from irm_lite.steering.injection import inject
from irm_lite.steering.irm import build_irm
from irm_lite.steering.irm_files import load_irm
from irm_lite.training import train as training
from irm_lite.training.nll import mean_nll
from irm_lite.training.step.injected_model import InjectedModel, varying_share
from irm_lite.vectors.mean import observe
from support.kinds import read_by
from support.small_training import config

Event = dict[str, Any]


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
