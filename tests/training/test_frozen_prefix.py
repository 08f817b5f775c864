"""The frozen prefix: where it ends, that it is the base's own, and that it is kept."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from irm_lite.base.architecture import decoder_layers
from irm_lite.base.forward import run_base
from irm_lite.data.dataset import Example
from irm_lite.data.encoding import Sample
from irm_lite.data.packing import pack
from irm_lite.steering.irm import build_irm
from irm_lite.training.step import frozen_prefix
from irm_lite.training.step.frozen_prefix import FrozenPrefix, blocks_from, first_reached
from support.tiny_models import VOCABULARY, tiny_model


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    return tiny_model(layers=4)


@pytest.fixture
def samples() -> list[Sample]:
    generator = torch.Generator().manual_seed(1)
    ids = [torch.randint(3, VOCABULARY, (length,), generator=generator).tolist() for length in (7, 4, 11)]
    return [Sample(each, 2, Example((), "", "")) for each in ids]


@pytest.mark.parametrize(("site", "layer", "first"), [("attn", 0, 0), ("attn", 2, 2), ("block", 0, 1), ("block", 3, 4)])
def test_a_prefix_and_the_rest_are_the_whole(
    model: PreTrainedModel, samples: list[Sample], site: Any, layer: int, first: int
) -> None:
    """Whatever is added at the injected layers, blocks before `first` never see it: hooks of our own count who ran."""
    irm = build_irm("lite", 64, (layer,), site)
    assert first_reached(model, irm) == first
    row = pack(samples)
    states = FrozenPrefix(model, irm).states(samples, row)
    outputs = model.model(  # transformers' own record of the stream, one sample at a time
        input_ids=torch.tensor([samples[1].ids]), output_hidden_states=True
    ).hidden_states
    if first in (1, 2):  # the last of them is normed
        torch.testing.assert_close(states["stream"][:, 7:11], outputs[first], rtol=1e-4, atol=1e-5)
    ran: list[int] = []
    handles = [block.register_forward_hook(lambda *_, at=at: ran.append(at)) for at, block in enumerate(decoder_layers(model))]
    with torch.no_grad(), blocks_from(model, first):
        rest = run_base(model, row, states.get("stream"))
    for handle in handles:
        handle.remove()
    assert ran == list(range(first, 4))
    with torch.no_grad():
        torch.testing.assert_close(rest, run_base(model, row), rtol=1e-4, atol=1e-5)
    assert len(decoder_layers(model)) == 4


def test_h0_is_what_the_mlp_of_layer_0_reads(model: PreTrainedModel, samples: list[Sample]) -> None:
    seen: list[torch.Tensor] = []
    norm: Any = decoder_layers(model)[0].post_attention_layernorm
    handle = norm.register_forward_pre_hook(lambda _module, args: seen.append(args[0]))
    row = pack(samples)
    run_base(model, row)
    handle.remove()
    h0 = FrozenPrefix(model, build_irm("paper", 64, (0, 1), "attn")).states(samples, row)["h0"]
    torch.testing.assert_close(h0, seen[0])
    assert not h0.requires_grad


@pytest.mark.parametrize("where", ["memory", "disk", "no room"])
def test_each_sample_is_run_once(
    model: PreTrainedModel, samples: list[Sample], tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Nothing:
        free = 0

    if where != "memory":
        monkeypatch.setattr(frozen_prefix, "MEMORY_SHARE", 0.0)
    if where == "no room":
        monkeypatch.setattr("shutil.disk_usage", lambda _: Nothing)
    kept = FrozenPrefix(model, build_irm("lite", 64, (2, 3), "block"))
    assert kept.keep(samples, tmp_path) == where
    assert not list(tmp_path.iterdir())
    fresh = FrozenPrefix(model, build_irm("lite", 64, (2, 3), "block"))
    ran: list[int] = []
    handle = decoder_layers(model)[1].register_forward_hook(lambda _module, args, _output: ran.append(args[0].shape[1]))
    found = []
    for group in (samples[:1], samples[::-1], samples[1:], samples):  # alone, with two unknown ones, known, all
        found.append((group, kept.states(group, pack(group))))
    handle.remove()
    assert ran == ([7, 22, 15, 22] if where == "no room" else [22])
    for group, states in found:
        expected = fresh.states(group, pack(group))
        assert states.keys() == expected.keys() == {"stream", "h0"}
        for name, tensor in states.items():
            torch.testing.assert_close(tensor, expected[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("share", "taking"), [(1.0, "empty"), (0.0, "from_file")])
def test_a_limit_on_the_address_space_is_no_room(
    model: PreTrainedModel, samples: list[Sample], tmp_path: Path, share: float, taking: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch's own error for it ended the training."""

    def refused(*_arguments: object, **_more: object) -> None:
        raise RuntimeError("unable to mmap 1234 bytes: Cannot allocate memory (12)")

    kept = FrozenPrefix(model, build_irm("lite", 64, (2, 3), "block"))
    monkeypatch.setattr(frozen_prefix, "MEMORY_SHARE", share)
    monkeypatch.setattr(torch, taking, refused)
    assert kept.keep(samples, tmp_path) == "no room"
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="the system cannot set room aside")
def test_a_disk_that_fills_meanwhile_is_no_room(
    model: PreTrainedModel, samples: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The room is set aside: a sparse file would kill the process at the first write beyond it. The limit stands for the disk."""
    resource = pytest.importorskip("resource")
    monkeypatch.setattr(frozen_prefix, "MEMORY_SHARE", 0.0)
    kept = FrozenPrefix(model, build_irm("lite", 64, (2, 3), "block"))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    monkeypatch.setattr(torch, "from_file", lambda *_, **__: pytest.fail("a file without room is mapped"))
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, before[1]))
    try:
        assert kept.keep(samples, tmp_path) == "no room"
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.iterdir())


def test_what_is_kept_is_the_same_bits_whatever_is_asked_for_first(
    model: PreTrainedModel, samples: list[Sample], tmp_path: Path
) -> None:
    """A resumed training comes to its samples in another order."""
    found = []
    for order in (samples, samples[::-1]):
        kept = FrozenPrefix(model, build_irm("lite", 64, (2, 3), "block"))
        kept.keep(samples, tmp_path)
        for sample in order:
            kept.states([sample], pack([sample]))
        found.append(kept.states(samples, pack(samples)))
    for name, states in found[0].items():
        assert torch.equal(states, found[1][name])


def test_a_model_with_two_kinds_of_attention_is_never_cut() -> None:
    model = tiny_model("qwen2", layers=4)
    model.config.layer_types = ["full_attention", "sliding_attention"] * 2
    assert first_reached(model, build_irm("lite", 64, (3,), "block")) == 0
