"""A lora run as an adapter: its folder in PEFT and its file in llama.cpp against the injected base."""

import json
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

from irm_lite import train
from irm_lite.base.load import load_base
from irm_lite.base.presets import presets
from irm_lite.cli import main as cli
from irm_lite.config import TrainConfig
from irm_lite.core.errors import InputError
from irm_lite.llamacpp import Runtime
from irm_lite.llamacpp.adapters import at_work
from irm_lite.runs.trained import TrainedRun
from irm_lite.steering.injection import inject
from irm_lite.vectors.adapter.measuring import peft_at_work
from irm_lite.vectors.export import export_vector
from support.tiny_models import write_gguf
from support.vllm_checks import complaints


@pytest.fixture(scope="module")
def run(steady_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    place = tmp_path_factory.mktemp("lora")
    model = write_gguf(steady_folder, place / "model.gguf", chat_template=presets()["llama-2-7b-chat"].chat_template)
    config = TrainConfig(
        model=str(model), irm="lora", quant="none", dtype="float32", device="cpu",
        max_steps=4, eval_steps=4, sample_tokens=0, learning_rate=0.05, loop_penalty=0, mask_indices="7",
    )  # fmt: skip
    return train(config, place / "run")


def steered(run: TrainedRun, model: PreTrainedModel, ids: list[int], strength: float) -> torch.Tensor:
    with torch.no_grad(), inject(model, run.irm, strength=strength):
        found: torch.Tensor = model(torch.tensor([ids])).logits[0].log_softmax(-1)
    return found


@pytest.mark.slow
def test_peft_and_llamacpp_do_with_it_what_the_injected_base_does(
    run: TrainedRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "adapter"
    assert cli.run(["export", str(run.directory.path), "--as", "adapter", "-o", str(folder), "--questions", "2", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["rank"], document["predicted"], document["texts"]) == (4, [], None)
    assert document["fidelity"] == pytest.approx(1, abs=1e-3)
    assert document["measured"]["kl_irm_base"] > 0.01
    assert document["score"]["questions"]["text"] == 2
    assert complaints(folder) == []
    assert "depends on what the model reads" in (folder / "README.md").read_text()
    ids = run.held_out[0].ids
    wanted, plain = steered(run, run.base.model, ids, 0.7), steered(run, run.base.model, ids, 0.0)
    template = presets()["llama-2-7b-chat"].chat_template
    base = load_base(str(run.gguf_path), quant="none", device="cpu", dtype="float32", chat_template=template)
    with peft_at_work(base, folder) as peft, torch.no_grad():
        for layer in (each for each in peft.modules() if hasattr(each, "lora_A")):
            layer.scaling["default"] *= 0.7
        by_peft = peft(torch.tensor([ids])).logits[0].log_softmax(-1)
    assert (wanted - by_peft).abs().max() < 1e-4 < (wanted - plain).abs().max()
    assert run.gguf_path is not None
    with Runtime(run.gguf_path, n_ctx=256) as runtime, at_work(runtime, [f"{folder / 'adapter.gguf'}:0.7"]):
        there = torch.from_numpy(runtime.logits(ids)).log_softmax(-1)
    assert float((wanted.exp() * (wanted - there)).sum(-1).mean()) < 1e-5


@pytest.mark.slow
def test_eval_measures_what_was_exported(run: TrainedRun, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["eval", str(run.directory.path), "--questions", "0", "--json"]
    assert cli.run(asked) == 2
    assert "--as adapter" in capsys.readouterr().err
    assert cli.run(["export", str(run.directory.path), "--as", "adapter", "--questions", "2", "--quiet"]) == 0
    kept = json.loads(run.directory.fidelity.read_text())
    assert list(kept) == ["adapter"]  # there is no vector
    assert kept["adapter"]["score"]["questions"]["text"] == 2
    export_vector(run, run.directory.default_vector)
    both = json.loads(run.directory.fidelity.read_text())
    assert both["adapter"] == kept["adapter"]
    assert both["method"] == "mean"
    run.directory.default_vector.unlink()
    capsys.readouterr()
    assert cli.run(asked) == 0
    assert json.loads(capsys.readouterr().out)["adapter"]["fidelity"] == pytest.approx(1, abs=1e-3)
    assert cli.run([*asked[:2], "--questions", "2", "--json"]) == 0
    alone = json.loads(capsys.readouterr().out)["adapter"]
    assert [len(alone["generations"][each]) for each in ("questions", "base", "adapter")] == [2, 2, 2]
    assert (alone["base_score"]["value"], alone["base_score"]["parts"]["tone"]) == (0, 0)
    assert alone["score"]["figures"]["base_choices"] == alone["base_score"]["figures"]["choices"]
    assert cli.run([*asked[:2], "--questions", "2"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert any("base" in line and "adapter" in line for line in shown)  # the head of the score's table


@pytest.mark.slow
def test_a_vector_is_made_of_it_too_and_keeps_its_mask(run: TrainedRun, tmp_path: Path) -> None:
    made = export_vector(run, tmp_path / "vector.gguf")
    assert 0.5 < made.comparison.fidelity < 1
    assert made.dependent_share is not None
    assert 0 < made.dependent_share.overall < 1
    assert not any(direction[7] for direction in made.vector.directions.values())


@pytest.mark.slow
def test_what_is_copied_whole_takes_no_rank_and_no_layers(
    run: TrainedRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["export", str(run.directory.path), "--as", "adapter", "-o", str(tmp_path / "a.gguf")]
    for flags in (["--rank", "2"], ["--layers", "1"]):
        assert cli.run([*asked, *flags]) == 2
        assert f"leave out {flags[0]}" in capsys.readouterr().err


def test_settings_that_make_no_sense_for_it_are_refused() -> None:
    with pytest.raises(InputError, match="leave out --site"):
        TrainConfig(irm="lora", site="attn")
    with pytest.raises(InputError, match="leave out --dependence-penalty"):
        TrainConfig(irm="lora", dependence_penalty=1.0)
    assert (TrainConfig(irm="lora").chosen_rank, TrainConfig(irm="lite").chosen_rank, TrainConfig(rank=3).chosen_rank) == (4, 16, 3)
