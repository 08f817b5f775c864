"""A base whose blocks accelerate has put in several places: here on disk, since there is one device.

accelerate's hooks wrap each module's forward and move what it reads and gives, on several GPUs as with blocks on disk.
"""

from pathlib import Path

import pytest
from accelerate import dispatch_model

from irm_lite.base.load import load_base
from irm_lite.config import TrainConfig
from irm_lite.core.errors import InputError
from irm_lite.core.machine import processes
from irm_lite.training import train as training


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{"irm": "lite"}, {"irm": "static", "layers": "2"}, {"irm": "paper", "layers": "1-2"}])
def test_a_dispatched_base_trains_to_the_same_losses(settings: dict[str, str], llama_folder: Path, tmp_path: Path) -> None:
    config = TrainConfig.from_dict(
        {
            "model": str(llama_folder),
            "quant": "none",
            "dtype": "float32",
            "device": "cpu",
            "max_steps": 4,
            "eval_steps": 2,
            "sample_tokens": 4,
            **settings,
        },
        "test",
    )
    losses = []
    for dispatched in (False, True):
        base = load_base(config.model, quant="none", dtype="float32", device="cpu")
        if dispatched:
            places = {"model.embed_tokens": "cpu", "model.rotary_emb": "cpu", "model.norm": "disk", "lm_head": "cpu"}
            places |= {f"model.layers.{index}": "disk" if index % 2 else "cpu" for index in range(base.n_layers)}
            dispatch_model(base.model, places, offload_dir=str(tmp_path / "offloaded"))
            assert base.model.model.layers[1].mlp.up_proj.weight.device.type == "meta"
        run = training.train(config, tmp_path / str(dispatched), base=base)
        events = list(run.directory.events.read())
        losses.append([event.get("loss", event.get("nll")) for event in events if event["kind"] in ("step", "eval")])
    assert losses[1] == pytest.approx(losses[0], rel=1e-6)


def test_several_processes_want_a_gpu_each(llama_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "count", lambda: 2)
    with pytest.raises(InputError, match="both want all GPUs"):
        training.train(TrainConfig(model=str(llama_folder), device_map="auto"), tmp_path / "run")
