"""Small models of several families go the whole way: train, export, and the vector is used again."""

from pathlib import Path
from typing import Any

import pytest
import torch

import irm_lite
from irm_lite.base.presets import presets
from irm_lite.config import TrainConfig
from irm_lite.llamacpp import Runtime
from irm_lite.runs.trained import load_run
from irm_lite.steering.control_vector import ControlVector
from irm_lite.training import train as training
from irm_lite.vectors.evaluation import evaluate_run
from irm_lite.vectors.export import export_vector
from support.tiny_models import write_gguf, write_hf_folder


def quick(model: Path, **changes: Any) -> TrainConfig:
    settings: dict[str, Any] = {
        "model": str(model),
        "device": "cpu",
        "max_steps": 12,
        "batch_size": 8,
        "eval_steps": 6,
        "learning_rate": 0.06,
        "irm": "lite",
        "rank": 4,
        "sample_tokens": 4,
    }
    return TrainConfig(**{**settings, **changes})


@pytest.mark.slow
def test_llama_2_format_as_folder(llama_folder: Path, llama_gguf: Path, tmp_path: Path) -> None:
    run = training.train(quick(llama_folder), tmp_path / "run")
    result = export_vector(run, tmp_path / "v.gguf")
    evaluation = evaluate_run(load_run(tmp_path / "run"), ControlVector.load(tmp_path / "v.gguf"), llama_gguf)
    assert [each.warning for each in evaluation.matches] == [None, None]  # the GGUF of the same weights has the same fingerprint
    assert all(each.note and "made on nf4 weights" in each.note for each in evaluation.matches)
    assert (result.comparison.measured_in, evaluation.aligned.measured_in) == ("transformers", "llama.cpp")
    assert evaluation.aligned.nll_vector < evaluation.aligned.nll_base - 0.2
    # NF4 in transformers, F32 in llama.cpp: not the same numbers, but the same effect
    for name in ("nll_base", "nll_irm", "nll_vector", "fidelity"):
        assert evaluation.aligned.means[name] == pytest.approx(result.comparison.means[name], abs=0.2)
    assert evaluation.generations is not None
    assert evaluation.generations.texts["irm"] != evaluation.generations.texts["base"]


@pytest.mark.slow
def test_llama_2_format_as_gguf(llama_gguf: Path, tmp_path: Path) -> None:
    run = training.train(quick(llama_gguf), tmp_path / "run")
    assert run.base.gguf_path == llama_gguf
    export_vector(run, run.directory.default_vector, method="mean")
    with Runtime(llama_gguf, n_ctx=256) as runtime:
        assert runtime.set_vector(ControlVector.load(run.directory.default_vector)) is None
        assert isinstance("".join(runtime.generate([{"role": "user", "content": "Why?"}], max_new_tokens=4)), str)


def test_folder_and_gguf_of_the_same_weights_are_the_same_base(llama_folder: Path, llama_gguf: Path) -> None:
    folder, gguf = (
        irm_lite.load_base(str(path), quant="none", dtype="float32", device="cpu") for path in (llama_folder, llama_gguf)
    )
    assert folder.fingerprint.weights == gguf.fingerprint.weights
    text = "Why is the sky blue? It scatters."  # after a special token llama.cpp puts a blank, transformers does not
    assert folder.tokenizer(text)["input_ids"] == gguf.tokenizer(text)["input_ids"]
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        assert (folder.model(ids).logits - gguf.model(ids).logits).abs().max() < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["mistral", "qwen2"])
def test_other_families_as_folder(kind: str, tmp_path: Path) -> None:
    folder = write_hf_folder(tmp_path / kind, kind, chat_template=presets()["llama-2-7b-chat"].chat_template)
    run = training.train(quick(folder), tmp_path / "run")
    result = export_vector(run, tmp_path / "v.gguf")
    vector = ControlVector.load(tmp_path / "v.gguf")
    assert vector.architecture == {"mistral": "llama", "qwen2": "qwen2"}[kind]
    assert result.comparison.nll_vector < result.comparison.nll_base - 0.2
    if kind == "mistral":  # the same graph in llama.cpp
        gguf = write_gguf(folder, tmp_path / "mistral.gguf")
        with Runtime(gguf, n_ctx=256) as runtime:
            assert runtime.set_vector(vector) is None


@pytest.mark.slow
@pytest.mark.parametrize("quant", ["fp4", "int8"])
def test_other_quantisations_train(llama_folder: Path, llama_gguf: Path, quant: str, tmp_path: Path) -> None:
    for number, model in enumerate((llama_folder, llama_gguf)):
        run = training.train(quick(model, quant=quant, max_steps=4, eval_steps=4), tmp_path / str(number))
        assert run.base.fingerprint.quantisation == quant


@pytest.mark.slow
def test_double_quantisation_trains(llama_folder: Path, tmp_path: Path) -> None:
    run = training.train(quick(llama_folder, double_quant=True, max_steps=4, eval_steps=4), tmp_path / "run")
    weight = run.base.model.model.layers[0].mlp.up_proj.weight
    assert weight.quant_state.nested
