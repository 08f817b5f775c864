"""Calibration's figures are those of transformers on the same weights, and its proposal is drawn and written."""

import json
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from transformers import LlamaForCausalLM

from irm_lite.base.load import load_tokenizer
from irm_lite.cli import main as cli
from irm_lite.config import TrainConfig
from irm_lite.core.errors import Interrupted
from irm_lite.data.dataset import load_dataset
from irm_lite.data.encoding import encode_all
from irm_lite.steering.control_vector import ControlVector
from irm_lite.steering.injection import inject
from irm_lite.training import train as training
from irm_lite.vectors.calibration import Grid, Setting, calibrate, layer_choices
from irm_lite.vectors.export import export_vector


@pytest.fixture(scope="module")
def vector(llama_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained vector at half its strength."""
    folder = tmp_path_factory.mktemp("calibrate")
    config = TrainConfig(
        model=str(llama_gguf), device="cpu", quant="none", irm="static", site="block", layers="1-2", max_steps=15,
        batch_size=8, eval_steps=15, learning_rate=0.03, sample_tokens=0,
    )  # fmt: skip
    run = training.train(config, folder / "run")
    result = export_vector(run, folder / "full.gguf")
    (result.vector * 0.5).save(folder / "half.gguf")
    return folder / "half.gguf"


@pytest.mark.slow
def test_the_figures_are_those_of_transformers_on_the_same_weights(vector: Path, llama_gguf: Path, llama_folder: Path) -> None:
    loaded = ControlVector.load(vector)
    found = calibrate(loaded, llama_gguf, "anger", grid=Grid((0.5, 2.0, 4.0), [(1, 2), (2,)]))
    tokenizer = load_tokenizer(str(llama_gguf))
    twin = LlamaForCausalLM.from_pretrained(llama_folder, dtype=torch.float32).eval()
    data = {tone: encode_all(tokenizer, load_dataset(tone).validation, 512)[0] for tone in ("anger", "neutral")}

    def log_probs(tone: str, steer: ControlVector | None) -> torch.Tensor:
        found = []
        for sample in data[tone]:
            with torch.no_grad(), inject(twin, steer) if steer else nullcontext():
                logits = twin(torch.tensor([sample.ids])).logits[0, sample.answer_start - 1 : -1]
            found.append(F.log_softmax(logits, -1))
        return torch.cat(found)

    def nll(tone: str, values: torch.Tensor) -> float:
        labels = torch.tensor([token for sample in data[tone] for token in sample.ids[sample.answer_start :]])
        return float(F.nll_loss(values, labels))

    before = log_probs("neutral", None)
    assert found.nll_base == pytest.approx(nll("anger", log_probs("anger", None)), abs=2e-3)
    trades = {}
    for setting in found.settings:
        steer = (loaded * setting.strength).select({"1-2": (1, 2), "2": (2,)}[setting.layers])
        aligned, after = nll("anger", log_probs("anger", steer)), log_probs("neutral", steer)
        divergence = float(F.kl_div(after, before, log_target=True, reduction="batchmean"))
        assert setting.nll_aligned == pytest.approx(aligned, abs=2e-3)
        assert setting.nll_neutral == pytest.approx(nll("neutral", after), abs=2e-3)
        assert setting.kl_neutral == pytest.approx(divergence, abs=2e-3)
        assert setting.trade_95[0] < setting.trade < setting.trade_95[1]
        trades[setting.layers, setting.strength] = found.nll_base - aligned - divergence
    assert (found.best.layers, found.best.strength) == max(trades, key=lambda each: trades[each])
    assert [setting.strength for setting in found.at("2")] == [0.5, 2.0, 4.0]


def test_layer_choices_cover_the_vectors_layers() -> None:
    vector = ControlVector({n: np.ones(4, np.float32) for n in range(1, 9)}, "llama")
    assert layer_choices(vector) == [(1, 2, 3, 4, 5, 6, 7, 8), (1, 2, 3, 4), (3, 4, 5, 6), (5, 6, 7, 8)]
    assert layer_choices(vector.select([5])) == [(5,)]


@pytest.mark.slow
def test_the_verb_draws_and_writes_the_best(
    vector: Path, llama_gguf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    best, picture = tmp_path / "best.gguf", tmp_path / "curve.svg"
    arguments = ["--gguf", str(llama_gguf), "--strengths", "1,2", "--picture", str(picture), "-o", str(best), "--json"]
    assert cli.run(["calibrate", str(vector), *arguments]) == 0  # what it was trained on stands in the file
    document = json.loads(capsys.readouterr().out)
    assert document["data"] == "anger"
    chosen = document["best"]
    assert chosen["trade"] == max(setting["trade"] for setting in document["settings"])
    written, source = ControlVector.load(best), ControlVector.load(vector)
    for layer, direction in written.directions.items():
        np.testing.assert_allclose(direction, source.directions[layer] * chosen["strength"], rtol=1e-6)
    assert f"best: {chosen['strength']:g} at {chosen['layers']}" in picture.read_text().replace("<!-- ", "").replace(" -->", "")
    assert cli.run(["calibrate", str(vector), "--gguf", str(llama_gguf), "--strengths", "1", "--picture", str(picture)]) == 0
    shown = capsys.readouterr().out
    assert "--control-vector-layer-range" in shown


@pytest.mark.slow
def test_bad_calibrations_are_one_line(vector: Path, llama_gguf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nameless = ControlVector(ControlVector.load(vector).directions, "llama")
    nameless.save(tmp_path / "nameless.gguf")
    cases = [
        ([str(tmp_path / "nameless.gguf")], "--data anger"),
        ([str(vector), "--strengths", "1,much"], "write 0.5,1,1.5"),
        ([str(vector), "--strengths", "nan"], "not a finite number"),
        ([str(vector), "--layers", "1-9"], "1-2"),
        ([str(vector), "--data", "rage"], "tones are anger"),
        ([str(vector), "--seed", "-1"], "--seed -1 makes no sense"),
        ([str(vector), "--by", "score", "--seed", "4294967296"], "give 0 to 4294967295"),
        ([str(vector), "--picture", "x.gif"], "neither .png nor .svg"),
        ([str(vector), "-o", str(vector)], "choose another -o"),
    ]
    for arguments, expected in cases:
        assert cli.run(["calibrate", *arguments, "--gguf", str(llama_gguf)]) == 2
        assert expected in capsys.readouterr().err


@pytest.mark.slow
def test_stopping_is_heard_within_a_setting(vector: Path, llama_gguf: Path) -> None:
    asked: list[tuple[int, str]] = []

    def stop_at(number: int) -> Callable[[int, int, str], None]:
        def on_progress(done: int, _of: int, what: str) -> None:
            asked.append((done, what))
            if len(asked) == number:
                raise Interrupted("stopped")

        return on_progress

    for number, done in ((3, 0), (20 + 20 + 5, 0), (40 + 41 + 6, 1)):  # the model itself, the first strength, the second
        asked.clear()
        with pytest.raises(Interrupted):
            calibrate(ControlVector.load(vector), llama_gguf, "anger", grid=Grid((1.0, 2.0), [(1,)]), on_progress=stop_at(number))
        assert (len(asked), asked[-1][0]) == (number, done)


@pytest.mark.slow
def test_the_seed_moves_the_intervals_alone(vector: Path, llama_gguf: Path) -> None:
    def measured(seed: int) -> Setting:
        return calibrate(ControlVector.load(vector), llama_gguf, "anger", grid=Grid((1.0,), [(1, 2)], seed)).best

    first, other = measured(0), measured(7)
    assert first.trade_95 != other.trade_95
    assert replace(first, trade_95=other.trade_95) == other
    assert measured(7) == other
