"""Exports: the mean against a direct computation, distillation against a vector that is known to exist."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from irm_lite.config import TrainConfig
from irm_lite.core.errors import InputError, LayerError
from irm_lite.data.encoding import encode_all
from irm_lite.runs.trained import TrainedRun, load_run
from irm_lite.steering.control_vector import ControlVector
from irm_lite.steering.irm import StaticIRM, build_irm
from irm_lite.training import train as training
from irm_lite.vectors.distil import ENOUGH, Fitting, distil
from irm_lite.vectors.evaluation import measure
from irm_lite.vectors.export import export_vector
from irm_lite.vectors.mean import Observed, block_directions, observe
from support import rederived


@pytest.fixture(scope="module")
def runs(llama_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, TrainedRun]:
    """A lite run at site attn, and a static one that llama.cpp can do exactly."""
    folder = tmp_path_factory.mktemp("runs")
    common: dict[str, Any] = {
        "model": str(llama_folder),
        "quant": "none",
        "dtype": "float32",
        "device": "cpu",
        "max_steps": 20,
        "batch_size": 8,
        "eval_steps": 20,
        "sample_tokens": 0,
        "learning_rate": 0.02,
    }
    lite = TrainConfig(**common, irm="lite", site="attn", rank=4)
    static = TrainConfig(**common, irm="static", site="block", layers="1-2")
    return {"lite": training.train(lite, folder / "lite"), "static": training.train(static, folder / "static")}


@pytest.mark.slow
def test_exact_export_is_the_trained_vectors_and_loses_nothing(runs: dict[str, TrainedRun], tmp_path: Path) -> None:
    result = export_vector(runs["static"], tmp_path / "v.gguf")
    assert result.method == "exact"
    path = runs["static"].directory.path
    scale = torch.tensor(json.loads((path / "irm.json").read_text())["options"]["scale"])
    trained = load_file(path / "irm.safetensors")["vectors"] * scale[:, None]
    loaded = ControlVector.load(tmp_path / "v.gguf")
    assert loaded.layers == (1, 2)
    assert all(torch.equal(torch.from_numpy(loaded.directions[layer]), trained[layer - 1]) for layer in (1, 2))
    assert result.comparison.fidelity == pytest.approx(1.0, abs=1e-6)
    assert result.comparison.nll_vector == pytest.approx(result.comparison.nll_irm, abs=1e-6)


@pytest.mark.slow
def test_mean_is_the_mean_over_answer_positions(runs: dict[str, TrainedRun]) -> None:
    run = runs["lite"]
    samples, _ = encode_all(run.base.tokenizer, run.dataset.train[:5], 512)
    outputs = []
    for sample in samples:  # one at a time, by the second derivation
        ids = torch.tensor([sample.ids])
        state = run.base.model.state_dict()
        with torch.no_grad():
            stream = state["model.embed_tokens.weight"][ids]
            part = {k.removeprefix("model.layers.0."): v for k, v in state.items() if k.startswith("model.layers.0.")}
            config = run.base.model.config
            normed = rederived._rms_norm(stream, part["input_layernorm.weight"], config.rms_norm_eps)
            h0 = stream + rederived._attention(normed, part, config)
            outputs.append(rederived.irm_outputs(run.irm, h0)[0, sample.answer_start - 1 : -1])
    each = torch.cat(outputs)
    observed = observe(run.base, run.irm, samples)
    torch.testing.assert_close(observed.mean, each.mean(0), atol=1e-5, rtol=1e-4)
    variance, power = each.var(0, correction=0).sum(-1), each.square().mean(0).sum(-1)
    torch.testing.assert_close(torch.tensor(observed.dependent_share.by_layer), variance / power, atol=1e-4, rtol=1e-3)
    assert observed.dependent_share.overall == pytest.approx(float(variance.sum() / power.sum()), rel=1e-3)


def test_of_no_output_nothing_varies() -> None:
    """An IRM right after its start puts out zeros: 0.0% overall, and 100% of each layer, were said in one line."""
    share = Observed(torch.zeros(2, 4), torch.zeros(2), []).dependent_share
    assert (share.overall, share.by_layer) == (0.0, (0.0, 0.0))


def test_layer_zero_goes_to_the_first_block_that_has_a_direction() -> None:
    irm = build_irm("static", 2, (0, 1, 3))
    directions = block_directions(torch.tensor([[1.0, 0], [0, 2], [3, 3]]), irm, 5)
    assert {layer: vector.tolist() for layer, vector in directions.items()} == {1: [1, 2], 2: [0, 0], 3: [3, 3], 4: [0, 0]}


@pytest.mark.slow
def test_distilled_beats_mean_and_says_so(runs: dict[str, TrainedRun], tmp_path: Path) -> None:
    distilled = export_vector(runs["lite"], tmp_path / "distil.gguf", method="distil")
    mean = export_vector(runs["lite"], runs["lite"].directory.default_vector, method="mean")
    assert distilled.comparison.kl_irm_base == pytest.approx(mean.comparison.kl_irm_base, rel=1e-5)
    assert distilled.comparison.fidelity > mean.comparison.fidelity
    assert distilled.comparison.fidelity > 0.8
    metadata = ControlVector.load(tmp_path / "distil.gguf").metadata
    fingerprint = runs["lite"].base.fingerprint
    assert (metadata["base.weights"], metadata["base.n_layers"]) == (fingerprint.weights, 3)
    assert (metadata["kind"], metadata["site"], metadata["method"]) == ("lite", "attn", "distil")
    assert metadata["fidelity"] == pytest.approx(distilled.comparison.fidelity, rel=1e-6)
    report = json.loads(runs["lite"].directory.fidelity.read_text())
    assert report["fidelity"] == pytest.approx(mean.comparison.fidelity)  # of the run's own vector, not of those written elsewhere
    assert bool(mean.warnings) == (mean.comparison.fidelity < 0.8)


@pytest.mark.slow
def test_auto_fits_only_where_the_mean_loses_too_much(runs: dict[str, TrainedRun], tmp_path: Path) -> None:
    """What the mean loses, against the comparison of the mean's own vector on the same answers."""
    run = runs["lite"]
    train, validation = (encode_all(run.base.tokenizer, part, 512)[0] for part in (run.dataset.train, run.dataset.validation))
    kept = distil(run.base, run.irm, train, validation, (1, 2), Fitting(enough=1.0))
    mean = export_vector(run, tmp_path / "mean.gguf", method="mean").vector
    assert not kept.fitted
    assert all(torch.allclose(kept.directions[block].cpu(), torch.from_numpy(mean.directions[block])) for block in (1, 2))
    found = measure(run, mean, None, validation)
    assert (kept.kl_mean, kept.kl_base) == pytest.approx((found.kl_irm_vector, found.kl_irm_base), rel=1e-4)
    assert kept.lost > ENOUGH  # this IRM acts before the MLP, which no mean at the blocks' outputs does
    result = export_vector(run, tmp_path / "auto.gguf")
    assert result.method == "distil"
    assert result.mean_loses == pytest.approx(kept.lost)


@pytest.mark.slow
def test_distillation_finds_vectors_that_exist(runs: dict[str, TrainedRun], tmp_path: Path) -> None:
    """The static run's effect can be had exactly: distilling it must come close, from blocks 1-2 alone."""
    result = export_vector(runs["static"], tmp_path / "v.gguf", method="distil")
    assert result.comparison.fidelity > 0.99


@pytest.mark.slow
def test_an_irm_of_zeros_is_said_to_steer_nothing(runs: dict[str, TrainedRun], tmp_path: Path) -> None:
    """Someone's training had been stopped at once: the vector of zeros read fidelity 1.000."""
    shutil.copytree(runs["static"].directory.path, tmp_path / "run")
    run = load_run(tmp_path / "run")
    assert isinstance(run.irm, StaticIRM)
    run.irm.vectors.zero_()
    result = export_vector(run, run.directory.default_vector)
    assert len(result.warnings) == 1
    assert "nothing is steered by the IRM or by the vector" in result.warnings[0]
    report = json.loads(run.directory.fidelity.read_text())
    assert report["fidelity"] is None
    assert report["unsteered"] == result.warnings[0]
    assert "fidelity" not in ControlVector.load(result.path).metadata


def test_bad_requests_write_nothing(runs: dict[str, TrainedRun], tmp_path: Path) -> None:
    with pytest.raises(LayerError, match="1-2"):
        export_vector(runs["lite"], tmp_path / "v.gguf", layers="0-2")
    with pytest.raises(InputError, match=r"\.gguf"):
        export_vector(runs["lite"], tmp_path / "v.bin")
    with pytest.raises(InputError, match="distil"):
        export_vector(runs["lite"], tmp_path / "v.gguf", method="exact")
    assert not list(tmp_path.iterdir())
