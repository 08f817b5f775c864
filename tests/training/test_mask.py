"""--mask-indices: what is masked stays zero in every kind, in its file, after a resume and in what is exported."""

import json
from pathlib import Path

import pytest
import torch

from irm_lite import train
from irm_lite.config import KINDS, Kind, TrainConfig
from irm_lite.core.errors import InputError, RunError
from irm_lite.runs.directory import RunDirectory
from irm_lite.runs.trained import load_run
from irm_lite.steering import irm_files
from irm_lite.steering.irm import build_irm
from irm_lite.steering.irm_files import load_irm, read_saved, save_irm, untrained
from irm_lite.training.step.injected_model import varying_share
from irm_lite.vectors.export import export_vector
from support.kinds import read_by

MASKED = [7, 15]


@pytest.mark.parametrize("kind", KINDS)
def test_outputs_and_moments_are_zero_there_and_the_same_elsewhere(kind: Kind, tmp_path: Path) -> None:
    config = TrainConfig(irm=kind, rank=3, width=10, mask_indices="15, 7,7")
    assert config.masked == MASKED
    masked = build_irm(kind, 16, (1, 2, 5), "block", **read_by(kind, 16), **config.irm_options)
    plain = build_irm(kind, 16, (1, 2, 5), "block", **read_by(kind, 16), **TrainConfig(irm=kind, rank=3, width=10).irm_options)
    for parameter in masked.parameters():
        torch.nn.init.normal_(parameter)
    plain.load_state_dict(masked.state_dict())
    assert "_mask" not in masked.state_dict()
    h0 = torch.randn(2, 3, 16)
    expected = plain(h0).clone()
    assert bool(expected[..., MASKED].all())
    expected[..., MASKED] = 0
    assert torch.equal(masked(h0), expected)
    for index in range(3):
        torch.testing.assert_close(masked.layer_output(masked.encode(h0), index), expected[..., index, :])
    mean, spread = masked.moments(masked.encode(h0))
    torch.testing.assert_close(mean, expected.flatten(0, 1).mean(0), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(spread, expected.flatten(0, 1).var(0, unbiased=False).sum(-1), atol=1e-4, rtol=1e-4)
    assert varying_share(mean, spread).isfinite().all()
    save_irm(masked, tmp_path)
    again = load_irm(tmp_path)
    assert torch.equal(again(h0), masked(h0))
    assert again.options["mask"] == MASKED
    assert json.loads((tmp_path / "irm.json").read_text())["format"] == 3
    assert not untrained(read_saved(tmp_path), 0)(h0)[..., MASKED].any()


def test_without_a_mask_the_file_is_what_an_older_irm_lite_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_irm(build_irm("lite", 16, (0, 1), "block", rank=3, scale=[1.0, 2.0]), tmp_path)
    assert json.loads((tmp_path / "irm.json").read_text())["format"] == 2
    save_irm(build_irm("static", 16, (0, 1), "block", mask=[3]), tmp_path)
    monkeypatch.setattr(irm_files, "FORMAT", 2)  # the irm-lite of before
    with pytest.raises(RunError, match="of a newer irm-lite"):
        load_irm(tmp_path)


def test_an_index_that_is_not_there_and_a_mask_of_all_are_refused() -> None:
    with pytest.raises(InputError, match="there is no index 16 to mask: the hidden size is 16"):
        build_irm("static", 16, (0,), "block", mask=[2, 16])
    with pytest.raises(InputError, match="mask fewer"):
        build_irm("static", 4, (0,), "block", mask=range(4))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_training_and_export_write_nothing_there(llama_folder: Path, tmp_path: Path, kind: Kind) -> None:
    config = TrainConfig(
        model=str(llama_folder), irm=kind, quant="none", dtype="float32", max_steps=3, eval_steps=1, sample_tokens=0,
        learning_rate=0.02, weight_decay=0.1, mask_indices="7,15", loop_penalty=0,
    )  # fmt: skip
    run = train(config, tmp_path / "run")
    assert 'mask_indices = "7,15"' in (tmp_path / "run" / "run.toml").read_text()
    h0 = torch.randn(1, 4, run.irm.options.get("inner", run.irm.hidden_size))
    outputs = run.irm(h0)
    assert outputs.abs().sum((0, 1, 2)).gt(0).sum() == run.irm.hidden_size - len(MASKED)
    assert not outputs[..., MASKED].any()
    assert RunDirectory(tmp_path / "run").config().masked == MASKED
    toml = (tmp_path / "run" / "run.toml").read_text().splitlines()
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "run.toml").write_text("\n".join(line for line in toml if not line.startswith("mask_indices")))
    assert RunDirectory(tmp_path / "old").config().masked == []  # a run of before
    for method in ("mean", "distil"):
        vector = export_vector(load_run(tmp_path / "run"), tmp_path / f"{method}.gguf", method=method).vector
        assert all(bool(each.any()) and not each[MASKED].any() for each in vector.directions.values())
