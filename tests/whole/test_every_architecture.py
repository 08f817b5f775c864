"""Beyond Llama, one of each way to treat the stream: trained, resumed, recorded, ablated and analysed."""

from pathlib import Path

import pytest
import torch

from irm_lite import train
from irm_lite.analysis import ablation
from irm_lite.analysis.ablation import AblationSettings
from irm_lite.analysis.analyze import analyze
from irm_lite.analysis.recordings.record import record
from irm_lite.analysis.recordings.run_recordings import with_recordings
from irm_lite.base.stream import stream_of
from irm_lite.config import TrainConfig
from irm_lite.core.errors import BaseModelError, Interrupted
from irm_lite.runs.trained import load_run
from irm_lite.training.train import resume
from zoo.configs import ZOO
from zoo.models import write_folder

pytestmark = pytest.mark.slow
OF = {tiny.name: tiny for tiny in ZOO}
# side by side; sandwich norms and a soft cap; no norm before attention; recurrent; experts that are padded
NAMES = ("phi", "gemma2", "olmo2", "mamba", "gpt_oss")


@pytest.fixture(params=NAMES)
def config(request: pytest.FixtureRequest, tmp_path: Path) -> TrainConfig:
    folder = write_folder(OF[request.param], tmp_path / "model")
    data = tmp_path / "data.jsonl"
    data.write_text("".join(f'{{"question": "What is {at}?", "answer": "Leave me alone, number {at}!"}}\n' for at in range(30)))
    sizes = {"irm": "lite", "quant": "none", "device": "cpu", "dtype": "float32", "batch_size": 4, "sample_tokens": 0}
    return TrainConfig(model=str(folder), data=str(data), max_steps=4, eval_steps=2, learning_rate=0.02, **sizes)  # type: ignore[arg-type]


def test_recorded_ablated_and_analysed(config: TrainConfig, tmp_path: Path) -> None:
    run = train(config, tmp_path / "run")
    recorded = record(run, run.held_out_questions[:2], new_tokens=3, keep=1)
    recorded.save(run.directory.recordings / "held-out")
    found = analyze(with_recordings([run.directory.path]), marks=[5], samples=3)
    assert [each["name"] for each in found.document["runs"]] == ["run"]
    mean_abs = recorded.statistics["generated"].mean_abs
    effects = ablation.ablate(run, [5], mean_abs, AblationSettings(samples=3))
    assert len(effects) == 1


def test_a_resumed_training_has_the_same_bits(config: TrainConfig, tmp_path: Path) -> None:
    whole = train(config, tmp_path / "whole")
    steps: list[bool] = []
    stopped = tmp_path / "stopped"
    with pytest.raises(Interrupted):
        train(config, stopped, on_event=lambda event: steps.append(event["kind"] == "step"), should_stop=lambda: sum(steps) >= 2)
    resume(stopped)
    one, other = (load_run(path).irm.state_dict() for path in (whole.directory.path, stopped))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert load_run(stopped).irm.h0 == stream_of(whole.base.model).h0


def test_paper_s_site_is_block_where_there_is_no_other(tmp_path: Path) -> None:
    folder = write_folder(OF["phi"], tmp_path / "phi")
    data = tmp_path / "data.jsonl"
    data.write_text("".join(f'{{"question": "What is {at}?", "answer": "Leave me alone!"}}\n' for at in range(30)))
    given = {
        "quant": "none",
        "device": "cpu",
        "dtype": "float32",
        "batch_size": 4,
        "sample_tokens": 0,
        "max_steps": 1,
        "irm": "paper",
    }
    run = train(TrainConfig(model=str(folder), data=str(data), **given), tmp_path / "run")  # type: ignore[arg-type]
    assert (run.irm.site, run.irm.h0, run.config.site) == ("block", "block", "block")
    assert load_run(tmp_path / "run").irm.h0 == "block"
    with pytest.raises(BaseModelError, match="no place between attention and MLP"):
        train(TrainConfig(model=str(folder), data=str(data), site="attn", **given), tmp_path / "other")  # type: ignore[arg-type]
    assert not (tmp_path / "other").exists()
