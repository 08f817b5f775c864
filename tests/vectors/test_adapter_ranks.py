"""An IRM itself as an adapter: regression and descent against other ways to the same, and what further ranks gain."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from irm_lite.base.fingerprint import fingerprint_gguf
from irm_lite.base.load import load_base
from irm_lite.base.presets import presets
from irm_lite.cli import main as cli
from irm_lite.config import TrainConfig
from irm_lite.runs.directory import RunDirectory
from irm_lite.runs.trained import load_run
from irm_lite.steering.adapter import Adapter
from irm_lite.steering.irm import Site, build_irm
from irm_lite.steering.irm_files import save_irm
from irm_lite.vectors.adapter import fitting_base
from irm_lite.vectors.adapter.closed_form import split_of
from irm_lite.vectors.adapter.inputs import Text
from irm_lite.vectors.adapter.measuring import peft_at_work
from irm_lite.vectors.adapter.of_irm import Ranks, Starts, adapter_of_irm
from irm_lite.vectors.adapter.predictor import fit
from irm_lite.vectors.adapter.regression import regress
from irm_lite.vectors.distil import Fitting
from irm_lite.vectors.fidelity.comparing import compared
from irm_lite.vectors.fidelity.in_transformers import SteeredBase
from support.tiny_models import write_gguf
from support.vllm_checks import complaints


def read(tokens: int, seed: int, width: int = 12) -> np.ndarray[Any, Any]:
    """Inputs of very different sizes, with a part in common."""
    generator = np.random.default_rng(seed)
    sizes = np.logspace(-2, 2, width)
    return ((generator.standard_normal((tokens, width)) + 1) * sizes).astype(np.float32)


def test_of_outputs_that_are_all_the_same_the_regression_is_the_predictor_of_1() -> None:
    v = np.random.default_rng(1).standard_normal(5).astype(np.float32)
    x, other = read(200, 0), read(50, 1)
    found = regress((x, np.tile(v, (200, 1))), (other, np.tile(v, (50, 1))), 2, 4)
    one = fit(x, other)
    assert found.ridge == one.ridge
    np.testing.assert_allclose(x @ found.a.T @ found.b.T, np.outer(x @ one.a, v), atol=1e-4)
    np.testing.assert_allclose(found.b[:, 1], 0, atol=1e-6)  # nothing is left for a second factor
    assert found.error == pytest.approx(one.error, rel=1e-3)


@pytest.mark.parametrize("tokens", [9, 300])  # fewer than inputs, and more
def test_the_regression_is_the_truncated_ridge_regression(tokens: int) -> None:
    generator = np.random.default_rng(2)
    x, other = read(tokens, 3), read(40, 4)
    true = generator.standard_normal((12, 6)) / np.logspace(-2, 2, 12)[:, None]
    y, wanted = (each @ true + 0.1 * generator.standard_normal((len(each), 6)) for each in (x, other))
    found = regress((x, y.astype(np.float32)), (other, wanted.astype(np.float32)), 3, 8)
    alpha = found.ridge * np.square(x, dtype=np.float64).sum() / 12
    w = Ridge(alpha, fit_intercept=False, solver="svd").fit(x.astype(np.float64), y).coef_.T
    left, sizes, right = np.linalg.svd(x @ w, full_matrices=False)
    best = left[:, :3] * sizes[:3] @ right[:3]
    np.testing.assert_allclose(x @ found.a.T @ found.b.T, best, atol=2e-3 * np.abs(best).max())
    for directions in (found.a, found.basis):
        np.testing.assert_allclose(np.square(x @ directions.T).mean(0), 1, rtol=1e-2)


def test_of_the_irm_no_more_ranks_are_asked_than_tokens_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(5)
    texts = [Text([1] * 5, 1.0, 2)] * 16
    split = split_of(texts)
    inputs, outputs = (
        generator.standard_normal((sum(len(text.ids) for text in split.all), 64)).astype(np.float32) for _ in range(2)
    )
    unread: Any = None
    irm: Any = SimpleNamespace(layers=(1,))
    starts = Starts(unread, irm, "ffn_down", 1.0)
    monkeypatch.setattr(Starts, "_read", lambda *_: {1: (inputs, outputs)})
    (found,) = starts.found(texts, 64, lambda *_: None).values()
    tokens = len(split.parts(inputs)[0])
    assert tokens < 64
    assert len(found.a) == tokens


def run_on(model_folder: Path, place: Path, site: Site, kind: str = "lite", quant: str = "none") -> RunDirectory:
    """A run on a tiny GGUF whose IRM, of random weights, depends on its input unless it is static."""
    model_file = write_gguf(model_folder, place / "model.gguf", chat_template=presets()["llama-2-7b-chat"].chat_template)
    directory = RunDirectory(place / "run")
    options: Any = {"model": str(model_file), "data": "neutral", "irm": kind, "quant": quant, "dtype": "float32"}
    directory.create(TrainConfig(**options, site=site, device="cpu"), fingerprint_gguf(model_file), {})
    torch.manual_seed(2)
    layers = (0, 1, 2) if site == "attn" else (1, 2)
    irm = build_irm(kind, 64, layers, site).requires_grad_(False)
    for parameter in irm.parameters():  # without biases what it puts out has next to no mean
        parameter.copy_(torch.zeros_like(parameter) if parameter.dim() == 1 and kind != "static" else parameter)
        if not parameter.any() and (parameter.dim() > 1 or kind == "static"):
            parameter.normal_(0, 0.4)
    save_irm(irm, directory.path)
    return directory


@pytest.mark.slow
@pytest.mark.parametrize("site", ["attn", "block"])
def test_further_ranks_carry_what_depends_on_the_input(
    site: Site, llama_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And what llama.cpp says of the file is what PEFT does with the folder, and what was measured while it was fitted."""
    directory = run_on(llama_folder, tmp_path, site)
    found = {}
    for rank in ("1", "8"):
        out = tmp_path / f"rank-{rank}"
        asked = ["export", str(directory.path), "--as", "adapter", "--rank", rank, "--epochs", "0.5", "-o", str(out), "--json"]
        assert cli.run(asked) == 0
        found[rank] = json.loads(capsys.readouterr().out)
    lost = {rank: 1 - each["fidelity"] for rank, each in found.items()}
    assert lost["8"] < 0.85 * lost["1"] < 0.2
    tuned = found["8"]["tuned"]
    assert tuned["kl"] < 0.8 * tuned["kl_start"] < tuned["kl_base"]
    modules = set(Adapter.load(tmp_path / "rank-8" / "adapter.gguf").factors)
    place = "attn_output" if site == "attn" else "ffn_down"
    assert modules == {f"blk.{layer}.{place}" for layer in ((0, 1, 2) if site == "attn" else (1, 2))}
    config = json.loads((tmp_path / "rank-8" / "adapter_config.json").read_text())
    assert config["r"] == config["lora_alpha"] == 8
    assert complaints(tmp_path / "rank-8") == complaints(tmp_path / "rank-8", max_lora_rank=8) == []
    assert complaints(tmp_path / "rank-8", max_lora_rank=1) == ["rank 8 is greater than max_lora_rank 1"]
    base, run = load_base(str(llama_folder), quant="none", device="cpu", dtype="float32"), load_run(directory.path)
    with peft_at_work(base, tmp_path / "rank-8") as peft:
        by_peft = compared(SteeredBase(base, run.irm, None, peft), run.held_out, students=("adapter",))["adapter"]
    assert found["8"]["fidelity"] == pytest.approx(by_peft.fidelity, abs=5e-3)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::irm_lite.core.errors.OtherBaseWarning")
def test_it_is_fitted_on_the_files_own_weights_where_there_is_memory(
    llama_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """llama.cpp runs the file, not the base in four bits that the IRM was trained on."""
    run = load_run(run_on(llama_folder, tmp_path, "attn", quant="nf4").path)
    found = {}
    for name in ("file", "base"):
        made = adapter_of_irm(run, tmp_path / f"{name}.gguf", Ranks(8, Fitting(0.1)))
        found[name] = 1 - made.comparison.fidelity
        assert made.texts.endswith("model.gguf in float32" if name == "file" else "the run's base in nf4")
        monkeypatch.setattr(fitting_base, "free_bytes", lambda _device: 1000)
    assert found["file"] < 0.9 * found["base"]


@pytest.mark.slow
def test_what_cannot_be_an_adapter_is_refused_before_its_vector_is_made(
    llama_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = run_on(llama_folder, tmp_path, "block")
    write_gguf(llama_folder, tmp_path / "experts.gguf", keys={"llama.expert_count": 4})
    asked = ["export", str(directory.path), "--as", "adapter"]
    for more, line in ((["--gguf", str(tmp_path / "experts.gguf")], "mixture of experts"), (["-o", "a.safetensors"], "neither")):
        assert cli.run([*asked, *more]) == 2
        assert line in capsys.readouterr().err
    assert not directory.default_vector.exists()


@pytest.mark.slow
def test_auto_takes_no_more_ranks_than_gain_and_bad_ranks_are_a_line(
    steady_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = run_on(steady_folder, tmp_path, "block", "static")
    out = tmp_path / "adapter.gguf"
    asked = ["export", str(directory.path), "--as", "adapter", "-o", str(out)]
    for bad, line in (("65", "beyond what the model has"), ("0", "beyond what the model has"), ("some", "is no rank")):
        assert cli.run([*asked, "--rank", bad]) == 2
        assert line in capsys.readouterr().err
    assert cli.run([*asked, "--rank", "auto", "--epochs", "0.1", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["rank"] == 1  # one vector a layer: nothing depends on the input
    assert set(document["tuned"]["kl_start_by_rank"]) == {"1", "2"}
    assert document["strengths_of"] == "irm"
