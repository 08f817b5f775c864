"""The predicted memory, part by part, against torch's own counts; the settings that fit; a step cut to what is free."""

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import psutil
import pytest
import torch
from transformers import AutoConfig
from transformers.models.llama.modeling_llama import LlamaConfig, LlamaForCausalLM

from irm_lite.base.architectures import TABLE
from irm_lite.base.load import Base, load_base
from irm_lite.base.packed_attention import attend_by_sample
from irm_lite.base.presets import find_gguf
from irm_lite.base.sources.shape import BaseShape, base_shape, shape_of_config, shape_of_header, side_by_side
from irm_lite.cli.main import run as irm_lite
from irm_lite.config import KINDS, TrainConfig
from irm_lite.core.errors import BaseModelError, InputError
from irm_lite.core.files.gguf_header import read_header
from irm_lite.core.machine import memory
from irm_lite.core.machine.malloc import freed_memory_returned
from irm_lite.core.machine.memory import parse_size
from irm_lite.data.dataset import Example
from irm_lite.data.encoding import Sample
from irm_lite.runs.directory import RunDirectory
from irm_lite.steering.injection import inject
from irm_lite.steering.irm import build_irm
from irm_lite.training import kept_share as kept
from irm_lite.training import train as training
from irm_lite.training.memory_fit import (
    NEW_TOKENS,
    OWN_ANSWERS,
    OWN_SHARE,
    Fit,
    Room,
    Step,
    choices,
    fewest_rows,
    irm_shape,
    largest_row,
    largest_step,
    predict,
    recommended,
    with_text,
)
from irm_lite.training.setup import own_share
from irm_lite.training.setup import prepare as preparing
from irm_lite.training.step import injected_model, own_repeats
from irm_lite.training.step.injected_model import InjectedModel, compute_dtype
from support.gguf_files import write_gguf as write_tensors
from support.kinds import read_by
from support.tiny_models import tiny_model, write_gguf

SAVED = (
    "blocks' activations",
    "blocks' inputs",
    "IRM outputs penalised",
    "IRM outputs compared",
    "attention to what is shared",
    "final norm",
    "IRM activations",
    "IRM outputs",
)
SEVEN = base_shape("llama-2-7b")


# Sizes


def test_a_shape_counts_the_weights_that_transformers_makes() -> None:
    with torch.device("meta"):
        model = LlamaForCausalLM(LlamaConfig())  # its defaults are Llama 2's at 7 B
    assert base_shape("llama-2-7b") == shape_of_config(model.config.to_dict(), "")
    assert SEVEN.parameters == sum(parameter.numel() for parameter in model.parameters())


def test_a_gguf_and_a_folder_tell_the_same_shape(llama_folder: Path, tmp_path: Path) -> None:
    model = tiny_model(layers=3)
    shape = base_shape(str(llama_folder))
    assert shape.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert base_shape(str(write_gguf(llama_folder, tmp_path / "tiny.gguf"))) == replace(shape, from_gguf=True)
    assert base_shape(str(find_gguf("demo"))) == base_shape("demo")


def test_bases_whose_blocks_attend_in_several_ways_are_whole(tmp_path: Path) -> None:
    """As transformers' own configurations have it, told by a preset, a config.json of before layer_types, and a GGUF."""
    whole = {name: base_shape(name).whole for name in ("gemma-3-270m", "gemma-3-4b", "qwen3-0.6b", "olmo-2-1b", "demo")}
    assert whole == {"gemma-3-270m": True, "gemma-3-4b": True, "qwen3-0.6b": False, "olmo-2-1b": False, "demo": False}
    for name in ("gemma2", "gemma3_text", "olmo2", "olmo3", "exaone4", "cohere2", "qwen3", "llama"):
        config = AutoConfig.for_model(name).to_dict()
        mixed = len(set(config.get("layer_types") or ())) > 1
        for lacking in ({}, {"layer_types": None}):
            assert shape_of_config({**config, **lacking, "intermediate_size": 64}, name).whole == mixed, name
        if name == "exaone4":
            continue  # its small ones have no window, and say so in the file
        tensors = {"token_embd.weight": np.zeros((32, 64), np.float32)}
        sizes = {"block_count": 2, "embedding_length": 64, "feed_forward_length": 64, "attention.head_count": 4}
        sizes |= {"attention.sliding_window": 16} if mixed else {}
        gguf = TABLE[name].gguf
        file = write_tensors(tmp_path / f"{name}.gguf", gguf, tensors, {f"{gguf}.{key}": size for key, size in sizes.items()})
        assert shape_of_header(read_header(file)).whole == mixed, name


@pytest.mark.parametrize("text", ["", "[]", '{"hidden_size": 64}', '{"hidden_size": 64, "num_attention_heads": 0}', "[" * 100_000])
def test_a_configuration_without_sizes_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(BaseModelError):
        base_shape(str(tmp_path))


def test_an_absurd_configuration_is_refused() -> None:
    with pytest.raises(BaseModelError, match="absurd"):
        shape_of_config({**LlamaConfig().to_dict(), "num_hidden_layers": 10**9}, "x")


@pytest.mark.parametrize("kind", KINDS)
def test_an_irm_has_the_weights_that_are_counted(kind: Any) -> None:
    config = TrainConfig(irm=kind, rank=24, width=300, layers="every 4")
    shape = irm_shape(config, SEVEN)
    with torch.device("meta"):
        irm = build_irm(kind, 4096, shape.layers, config.chosen_site, **read_by(kind, 11008), **config.irm_options)
    assert shape.parameters == sum(parameter.numel() for parameter in irm.parameters())
    largest = max(parameter.numel() for parameter in irm.parameters())
    assert largest <= max(shape.weights.values()) <= 1.01 * largest  # a matrix is counted with its bias


@pytest.mark.parametrize("double_quant", [False, True])
def test_the_bases_weights_take_what_is_predicted(llama_folder: Path, double_quant: bool) -> None:
    model = load_base(str(llama_folder), device="cpu", dtype="float32", double_quant=double_quant).model
    held = sum(parameter.nbytes for parameter in model.parameters())
    for parameter in model.parameters():
        if (state := getattr(parameter, "quant_state", None)) is not None:
            held += state.absmax.nbytes + (state.state2.absmax.nbytes if double_quant else 0)
    config = TrainConfig(double_quant=double_quant)
    fit = predict(base_shape(str(llama_folder)), config, Step(1), "cuda", "float32", "adamw_torch", Room(0))
    assert fit.load["blocks' weights"] + fit.load["embeddings and head"] == pytest.approx(held, rel=0.01)


# What a step holds


@contextmanager
def prepared(model: Any, config: TrainConfig) -> Iterator[InjectedModel]:
    irm = build_irm(config.irm, 64, irm_shape(config, SHAPE).layers, config.chosen_site)
    base = cast(Base, SimpleNamespace(model=model, plan=SimpleNamespace(device="cpu")))
    with training._recomputing(base, config.gradient_checkpointing), inject(model, irm) as injection:
        injection.compute_dtype = compute_dtype(base, irm)
        made = InjectedModel(base, injection, config.l1, config.chosen_dependence_penalty, config.gradient_checkpointing)
        made._observed_at = math.inf
        yield made


SHAPE = BaseShape(5, 64, 128, 4, 2, 16, 640, tied=False)


@pytest.mark.parametrize("shared", [0, 12])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    "settings",
    [
        {"irm": "lite"},
        {"irm": "lite", "site": "attn"},
        {"irm": "lite", "gradient_checkpointing": True},
        {"irm": "lite", "dependence_penalty": 0.0, "l1": 0.1},
        {"irm": "static", "layers": "2-4"},
        {"irm": "static", "site": "attn", "gradient_checkpointing": True},
        {"irm": "paper"},
        {"irm": "paper", "l1": 0.1},
        {"irm": "paper", "dependence_penalty": 1.0},
        {"irm": "paper", "layers": "1-3", "gradient_checkpointing": True},
    ],
)
def test_autograd_saves_what_is_predicted(settings: dict[str, Any], dtype: str, shared: int) -> None:
    config = TrainConfig.from_dict(settings, "test")
    model = tiny_model(layers=5).to(getattr(torch, dtype)).requires_grad_(False)
    attend_by_sample(model)
    samples = [Sample([*range(3, 44)], shared + 1, Example((), None, "")) for _ in range(7)]  # 287 tokens are no weight's size
    held: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        held[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with prepared(model, config) as made:
        weights = [*model.parameters(), *made.irm.parameters()]
        with made.stepping(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            made(samples, 100)
        code = made.injection.code
        for tensor in code if config.irm == "paper" else ():
            keep(tensor)
        for weight in weights:  # neither they nor their copies in half precision, which are a part of their own
            held.pop(weight.untyped_storage().data_ptr(), None)
            halved = (weight.shape, weight.shape[::-1]) if dtype == "bfloat16" else ()
            held = {place: tensor for place, tensor in held.items() if tensor.shape not in halved}
        counted = sum(tensor.untyped_storage().nbytes() for tensor in held.values())
    step = Step(sum(len(sample.ids) for sample in samples) - 6 * shared, repeated=6 * shared)
    fit = predict(SHAPE, config, step, "cpu", dtype, "adamw_torch", Room(0))
    predicted = sum(fit.training.get(part, 0) for part in SAVED)
    assert predicted == pytest.approx(counted, rel=0.03)


def test_the_largest_row_is_what_a_shuffled_run_meets() -> None:
    chance = np.random.default_rng(0)
    lengths = chance.integers(20, 200, 500).tolist()
    for samples, draws in ((1, 50), (8, 60), (32, 15)):
        rows = chance.choice(lengths, (400, draws, samples)).sum(axis=2)
        assert largest_row(lengths, samples, draws) == pytest.approx(rows.max(axis=1).mean(), rel=0.1)
    assert largest_row([5, 6, 7], 8, 10) == 18
    assert largest_row([50] * 9, 4, 1000) == 200


def test_samples_seen_again_are_kept() -> None:
    config = TrainConfig(batch_size=4)
    assert largest_step([10] * 8, [7], config, 2, 1) == Step(40, 7)
    assert largest_step([10] * 8, [7], config, 3, 2) == Step(20, 87, 2)
    assert largest_step([10] * 8, [7], config, 3, 2, shared=5) == Step(15, 87, 2, 5)
    assert largest_step([10] * 8, [7], replace(config, cache_prefix=False), 3, 2) == Step(20, 0, 2)


# What is written


def test_the_text_that_is_written_is_what_a_training_writes() -> None:
    assert (NEW_TOKENS, OWN_ANSWERS) == (own_repeats._NEW_TOKENS, own_repeats._A_STEP)
    text = with_text(Step(100), TrainConfig(irm="static", sample_tokens=64), 20)
    assert (text.said_again, text.written) == (3 * 68, 84)
    assert with_text(Step(100), TrainConfig(irm="static", sample_tokens=0, loop_penalty=0.0), 20) == Step(100)
    assert with_text(Step(100), TrainConfig(irm="paper", sample_tokens=0), 20) == Step(100)  # no loops are looked for


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_keys_and_values_of_text_take_what_is_predicted(dtype: str) -> None:
    model = tiny_model(layers=5).to(getattr(torch, dtype))
    model.generation_config.eos_token_id = None
    prompts = torch.full((side_by_side(SHAPE.hidden_size), 12), 5)
    with torch.no_grad():
        written = model.generate(prompts, max_new_tokens=9, do_sample=False, return_dict_in_generate=True)
    held = sum(each.nbytes for layer in written.past_key_values.layers for each in (layer.keys, layer.values))
    step = Step(1, written=12 + 8)  # the last token is not read
    fit = predict(SHAPE, TrainConfig(irm="static"), step, "cuda", dtype, "adamw_torch", Room(0))
    assert fit.training["text: keys and values"] == held
    assert "blocks' activations" not in fit.training  # of a row of one token: text takes more
    assert (
        "text: keys and values"
        not in predict(SHAPE, TrainConfig(irm="static"), replace(step, tokens=4000), "cuda", dtype, "adamw_torch", Room(0)).training
    )


def test_a_row_of_loops_counts_where_it_is_the_largest() -> None:
    def peak(step: Step) -> int:
        return predict(SHAPE, TrainConfig(irm="static"), step, "cpu", "float32", "adamw_torch", Room(0)).training_peak

    assert peak(Step(100, said_again=400, repeated=30)) == peak(Step(400)) > peak(Step(100, said_again=100)) == peak(Step(100))


def test_unlikelihood_is_held_a_few_tokens_at_a_time() -> None:
    """By the system's count, of a backward pass that would hold 24 bytes for each of 144 tokens and 100,000 words."""
    words, tokens = 100_000, 144
    head = torch.nn.Linear(8, words, bias=False).requires_grad_(False)
    hidden = (40 * torch.randn(tokens, 8)).requires_grad_()
    whole = head(hidden)
    again = whole.argmax(1, keepdim=True)  # likely ones: of others 1 - p is as good as 1 in float32
    wanted = -torch.log1p(-torch.softmax(whole.double(), 1).gather(1, again)).sum()
    (gradient,) = torch.autograd.grad(wanted, hidden)
    del whole
    held = []
    for _ in range(2):  # what else this process does in the meantime, it does not do twice
        hidden.grad = None
        with freed_memory_returned():  # no holes in the heap
            if not memory.reset_peak("cpu"):
                pytest.skip("the system counts no peak anew")
            before = memory.held_bytes("cpu")
            price = injected_model.unlikelihood(head, hidden, again)
            torch.autograd.backward(price)
            held.append(memory.peak_bytes("cpu") - before)
    assert min(held) < 1.3 * 24 * injected_model._AGAIN * words
    assert price.item() == pytest.approx(wanted.item(), rel=1e-3)
    assert hidden.grad is not None
    assert torch.allclose(hidden.grad, gradient.float(), rtol=1e-3, atol=1e-4)


# The process's own share


def test_weights_are_counted_once_with_their_constants(llama_folder: Path) -> None:
    model = load_base(str(llama_folder), device="cpu", dtype="float32", double_quant=True).model
    shape = base_shape(str(llama_folder))
    fit = predict(shape, TrainConfig(double_quant=True), Step(1), "cuda", "float32", "adamw_torch", Room(0))
    predicted = fit.load["blocks' weights"] + fit.load["embeddings and head"]
    assert own_share.weight_bytes(model) == pytest.approx(predicted, rel=0.02)


@pytest.mark.slow
def test_what_the_process_holds_is_measured_and_predicted(llama_folder: Path, tmp_path: Path) -> None:
    base = load_base(str(llama_folder), device="cpu", quant="none", dtype="float32")
    plain = trained(tmp_path / "plain", base)[0]
    planted = np.ones(300_000_000, np.uint8)  # as another build of torch would
    events = trained(tmp_path / "planted", base)
    more = events[0]["predicted_training_bytes"] - plain["predicted_training_bytes"]
    assert more == pytest.approx(planted.nbytes, rel=0.1)
    assert events[0]["predicted_training_bytes"] == pytest.approx(events[-1]["training_peak_bytes"], rel=0.1)


def test_what_a_training_measured_is_kept_for_its_build_of_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IRM_LITE_CACHE", str(tmp_path))
    assert kept.kept_share() is None
    assert kept.room(5) == Room(5, OWN_SHARE)
    kept.keep_share(1_100_000_000)
    assert kept.room(5) == Room(5, 1_100_000_000)
    fit = predict(SHAPE, TrainConfig(), Step(1), "cpu", "float32", "adamw_torch", kept.room(0))
    assert fit.training["process"] == fit.load["process"] == 1_100_000_000
    monkeypatch.setattr(kept, "version", lambda _package: "0.0+other")
    assert kept.kept_share() is None
    for damaged in ("", "[]", '{"torch": "0.0+other", "bytes": 5}', '{"torch": "0.0+other", "bytes": true}'):
        (tmp_path / "own-share.json").write_text(damaged)
        assert kept.kept_share() is None


# What fits


def test_no_fewer_rows_would_fit() -> None:
    def held(rows: int) -> Fit:
        return Fit({}, {"row": math.ceil(24 / rows)})

    for free in range(25):
        rows = fewest_rows(held, 24, free)
        fitting = [each for each in range(1, 25) if held(each).training_peak <= free]
        assert rows == (fitting[0] if fitting else 24)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_the_recomfixed_settings_fit_and_keep_the_batch(device: str) -> None:
    found = choices(SEVEN, TrainConfig(model="llama-2-7b"), 128, device, "bfloat16", "adamw_torch", Room(0))
    seen: set[tuple[int, bool]] = set()
    for gigabytes in range(4, 40):
        best = recommended(found, gigabytes * 10**9)
        if best is None:
            assert not any(each.fits(gigabytes * 10**9) for each in found)
            continue
        assert best.batch_size * best.gradient_accumulation_steps == TrainConfig().batch_size
        step = Step(best.batch_size * 128)
        fit = predict(SEVEN, best, step, device, "bfloat16", "adamw_torch", Room(0))
        assert max(fit.load_peak, fit.training_peak) <= gigabytes * 10**9
        seen.add((best.batch_size, best.gradient_checkpointing))
    assert (8, False) in seen
    assert {recomputing for _, recomputing in seen} == {False, True}


def test_each_saving_saves() -> None:
    def peak(**settings: Any) -> int:
        config = TrainConfig.from_dict({"irm": "lite", "quant": "none", **settings}, "test")
        return predict(
            SEVEN, config, Step(1024, 1024), "cuda", "bfloat16", config.chosen_optim("adamw_torch"), Room(0)
        ).training_peak

    assert peak(quant="nf4", double_quant=True) < peak(quant="nf4") < peak(quant="int8") < peak()
    assert max(peak(gradient_checkpointing=True), peak(layers="16-31"), peak(optim="paged_adamw_8bit")) < peak()


def test_the_blocks_are_dequantised_once_where_half_of_the_memory_is_enough() -> None:
    """On a CPU that computes in bfloat16: 2 bytes for each weight of the blocks that are run at each step."""

    def fit(free: float, device: str = "cpu", dtype: str = "bfloat16", **settings: Any) -> Fit:
        config = TrainConfig.from_dict({"irm": "lite", "layers": "16-31", **settings}, "test")
        return predict(SEVEN, config, Step(1024), device, dtype, "adamw_torch", Room(int(free)))

    weights = 15 * 2 * (4 * 4096**2 + 3 * 4096 * 11008)  # blocks 17 to 31 of Llama 2 7B
    least, whole = fit(0).training_peak, fit(1e12).training_peak
    assert whole - least == weights
    assert fit(2 * whole).dequantised_once
    for other in (
        fit(2 * whole - 1),
        fit(1e12, "cuda"),
        fit(1e12, dtype="float32"),
        fit(1e12, quant="none"),
        fit(1e12, gradient_checkpointing=True),
    ):
        assert not other.dequantised_once


@pytest.mark.parametrize("text", ["", "8", "GB", "1.2.3GB"])
def test_a_size_has_a_number_and_a_unit(text: str) -> None:
    assert parse_size("1.5GiB") == 3 * 2**29
    with pytest.raises(InputError):
        parse_size(text)


# The verb


def test_models_fit_gives_the_settings_that_fit(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["models", "fit", "--model", "llama-2-7b-chat", "--memory", "8GB", "--device", "cuda", "--kind", "lite", "paper"]
    assert irm_lite([*arguments, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["memory_bytes"], document["device"]) == (8 * 10**9, "cuda")
    assert {row["irm"] for row in document["settings"]} == {"lite", "paper"} == {*document["commands"], "paper"}
    for row in document["settings"]:
        assert row["training_peak_bytes"] == sum(row["training"].values())
        assert row["fits"] == (max(row["load_peak_bytes"], row["training_peak_bytes"]) <= 8 * 10**9)
    assert irm_lite(arguments) == 0
    assert document["commands"]["lite"] in capsys.readouterr().out


def test_the_command_that_models_fit_gives_is_one(capsys: pytest.CaptureFixture[str], llama_folder: Path, tmp_path: Path) -> None:
    assert irm_lite(["models", "fit", "--model", str(llama_folder), "--kind", "static", "--device", "cpu", "--json"]) == 0
    command = json.loads(capsys.readouterr().out)["commands"]["static"].split()[1:]
    assert irm_lite([*command, "--max-steps", "1", "--sample-tokens", "0", "--out", str(tmp_path / "run"), "--json"]) == 0
    assert RunDirectory(tmp_path / "run").config().batch_size == 8


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["--model", "nobody/nothing"], "models list"),
        (["--memory", "8"], "as 8GB"),
        (["--layers", "0-99"], "0-29"),
        (["--optim", "nonsense"], "adamw_torch"),
        (["--length", "0"], "give 1 to"),
        (["--length", "1" + "0" * 400], "give 1 to"),
        (["--memory", "9" * 400 + "GB"], "as 8GB"),
    ],
)
def test_models_fit_refuses_in_one_line(capsys: pytest.CaptureFixture[str], arguments: list[str], hint: str) -> None:
    assert irm_lite(["models", "fit", *arguments]) == 2
    told = capsys.readouterr().err.strip()
    assert hint in told
    assert "\n" not in told


# In a training


def trained(folder: Path, base: Base | None = None, **settings: Any) -> list[dict[str, Any]]:
    config = {"model": "x", "device": "cpu", "quant": "none", "max_steps": 2, "eval_steps": 2, "sample_tokens": 0, **settings}
    run = training.train(TrainConfig.from_dict(config, "test"), folder, base=base)
    return list(run.directory.events.read())


@pytest.mark.slow
def test_auto_takes_the_same_steps_in_as_few_rows_as_fit(
    llama_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = load_base(str(llama_folder), device="cpu", quant="none", dtype="float32")
    monkeypatch.setattr(preparing, "measured_share", lambda *_modules: OWN_SHARE)  # this process grows from run to run
    alone = {"loop_penalty": 0.0}  # a row of loops is as large however a step is cut
    whole = trained(tmp_path / "whole", base, batch_size=3, gradient_accumulation_steps=2, batch="auto", **alone)
    assert whole[0]["rows"] == 1
    one_sample = trained(tmp_path / "small", base, batch_size=1, **alone)[0]["predicted_training_bytes"]
    limits = {2: (whole[0]["predicted_training_bytes"] - 1), 6: one_sample - 1}
    for rows, limit in limits.items():
        monkeypatch.setattr(preparing, "free_bytes", lambda device, limit=limit: limit)
        cut = trained(tmp_path / f"in {rows}", base, batch_size=3, gradient_accumulation_steps=2, batch="auto", **alone)
        assert cut[0]["rows"] == rows
        steps, cut_steps = ([event for event in events if event["kind"] == "step"] for events in (whole, cut))
        assert [step["tokens"] for step in cut_steps] == [step["tokens"] for step in steps]
        assert [step["loss"] for step in cut_steps] == pytest.approx([step["loss"] for step in steps], rel=1e-4)


@pytest.mark.slow
def test_a_training_tells_its_peaks_and_warns_where_they_are_beyond_what_is_free(
    llama_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = trained(tmp_path / "run", model=str(llama_folder))
    start, end = events[0], events[-1]
    assert (start["kind"], end["kind"]) == ("start", "end")
    resident = psutil.Process().memory_info().rss
    assert min(start["load_peak_bytes"], end["training_peak_bytes"]) > resident / 2
    assert start["predicted_training_bytes"] > start["predicted_load_bytes"] > 0
    assert not [event for event in events if event["kind"] == "warning"]
    monkeypatch.setattr(preparing, "free_bytes", lambda device: 10**8)
    events = trained(tmp_path / "tight", load_base(str(llama_folder), device="cpu", quant="none"))
    assert events[0]["load_peak_bytes"] is None
    warnings = [event["text"] for event in events if event["kind"] == "warning"]
    assert len(warnings) == 1
    assert "--gradient-checkpointing" in warnings[0]
    assert "0.1 GB are free" in warnings[0]


@pytest.mark.slow
def test_a_base_whose_sizes_are_told_otherwise_is_trained_unpredicted(
    llama_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(*_: object) -> BaseShape:
        raise BaseModelError("no sizes", "none")

    monkeypatch.setattr(preparing, "shape_of_config", unknown)
    events = trained(tmp_path / "run", model=str(llama_folder), batch="auto")
    assert (events[0]["rows"], events[0]["predicted_training_bytes"]) == (1, None)


def test_what_is_free_is_the_systems_and_this_processes_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=5))
    own = psutil.Process().memory_info().rss
    assert memory.free_bytes("cpu") == pytest.approx(own + 5, rel=0.05)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (700, 1000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda: 100)
    for share, free in ((1.0, 800), (0.5, 500)):
        monkeypatch.setattr(torch.cuda, "get_per_process_memory_fraction", lambda share=share: share)
        assert memory.free_bytes("cuda") == free
