"""The networks' shapes and sizes as the paper's code has them, and files that survive a round trip."""

import json
from pathlib import Path

import pytest
import torch

from irm_lite.config import KINDS, Kind, TrainConfig
from irm_lite.core.errors import InputError, RunError
from irm_lite.steering.irm import build_irm
from irm_lite.steering.irm_files import load_irm, save_irm
from support.kinds import read_by


def test_paper_irm_of_llama_2_7b_has_the_papers_size() -> None:
    with torch.device("meta"):
        irm = build_irm("paper", 4096, tuple(range(32)))
    shapes = [tuple(parameter.shape) for name, parameter in irm.named_parameters() if name.endswith("weight")]
    assert shapes == [(12288, 4096), (12288, 12288), (12288, 12288), (12288, 12288), (4096 * 32, 12288)]
    assert sum(parameter.numel() for parameter in irm.parameters()) == pytest.approx(2.11e9, rel=0.005)


def test_paper_irm_starts_from_pytorchs_default_and_lite_from_the_unchanged_base() -> None:
    h0 = torch.randn(1, 3, 16)
    torch.manual_seed(7)
    paper = build_irm("paper", 16, (0, 1))
    torch.manual_seed(7)
    first = torch.nn.Linear(16, 48)
    assert torch.equal(paper.state_dict()["trunk.0.weight"], first.weight)
    assert paper(h0).abs().max() > 0
    for kind in KINDS.keys() - {"paper"}:
        assert not build_irm(kind, 16, (0, 1), "block", **read_by(kind, 16))(h0).any(), kind


def test_lite_irm_does_not_feel_the_streams_scale() -> None:
    torch.manual_seed(0)
    irm = build_irm("lite", 16, (0, 1), rank=3)
    torch.nn.init.normal_(irm.get_parameter("up"))
    h0 = torch.randn(1, 3, 16)
    torch.testing.assert_close(irm(h0), irm(1000 * h0), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_saved_and_loaded_again_it_is_the_same_function(kind: Kind, tmp_path: Path) -> None:
    irm = build_irm(kind, 16, (1, 2, 5), "block", **read_by(kind, 16), **TrainConfig(irm=kind, rank=3, width=10).irm_options)
    for parameter in irm.parameters():
        torch.nn.init.normal_(parameter)
    save_irm(irm, tmp_path)
    again = load_irm(tmp_path)
    assert (again.kind, again.layers, again.site, again.options) == (irm.kind, irm.layers, irm.site, irm.options)
    h0 = torch.randn(2, 3, 16)
    assert torch.equal(irm(h0), again(h0))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["irm.json", "irm.safetensors"]


@pytest.mark.parametrize("kind", ["lite", "static"])
def test_scaled_outputs_are_the_weights_outputs_times_the_scale(kind: Kind, tmp_path: Path) -> None:
    scale, h0 = [0.5, 3.0, 20.0], torch.randn(2, 3, 16)
    torch.manual_seed(1)
    plain = build_irm(kind, 16, (1, 2, 5), "block")
    for parameter in plain.parameters():
        torch.nn.init.normal_(parameter)
    scaled = build_irm(kind, 16, (1, 2, 5), "block", scale=scale)
    scaled.load_state_dict(plain.state_dict())
    code = scaled.encode(h0)
    expected = plain(h0) * torch.tensor(scale)[:, None]
    one_by_one = torch.stack([scaled.layer_output(code, index) for index in range(3)], dim=-2)
    for found in (scaled(h0), one_by_one):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-2)
    means, spreads = scaled.moments(code)
    flat = expected.flatten(0, 1)
    torch.testing.assert_close(means, flat.mean(0), rtol=1e-4, atol=1e-2)
    torch.testing.assert_close(spreads, (flat - flat.mean(0)).square().sum(-1).mean(0), rtol=1e-3, atol=1e-1)
    save_irm(scaled, tmp_path)
    again = load_irm(tmp_path)
    assert torch.equal(again(h0), scaled(h0))
    assert again.options["scale"] == scale
    assert json.loads((tmp_path / "irm.json").read_text())["format"] == 2  # an older irm-lite says that it is too old
    save_irm(plain, tmp_path)
    assert json.loads((tmp_path / "irm.json").read_text())["format"] == 1  # and can read this one


@pytest.mark.parametrize("scale", [[1.0], [1.0, 0.0], [1.0, -2.0], [1.0, float("nan")]])
def test_scales_that_do_not_fit_are_refused(scale: list[float]) -> None:
    with pytest.raises(InputError, match="as many scales above 0"):
        build_irm("static", 16, (1, 2), "block", scale=scale)


def test_bad_files_are_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="irm.json is missing"):
        load_irm(tmp_path)
    save_irm(build_irm("static", 16, (1,)), tmp_path)
    description = json.loads((tmp_path / "irm.json").read_text())
    for change in ({"kind": "huge"}, {"layers": "x"}, {"hidden_size": 17}, {"options": {"colour": 1}}, {"layers": "1-2"}):
        (tmp_path / "irm.json").write_text(json.dumps({**description, **change}))
        with pytest.raises(RunError, match="damaged"):
            load_irm(tmp_path)
    (tmp_path / "irm.json").write_text(json.dumps({**description, "format": 4}))
    with pytest.raises(RunError, match="pip install -U"):
        load_irm(tmp_path)
    (tmp_path / "irm.json").write_text(json.dumps(description))
    whole = (tmp_path / "irm.safetensors").read_bytes()
    (tmp_path / "irm.safetensors").write_bytes(whole[:-3])
    with pytest.raises(RunError, match="damaged"):
        load_irm(tmp_path)
    with pytest.raises(InputError, match="--layers"):
        build_irm("lite", 16, ())
