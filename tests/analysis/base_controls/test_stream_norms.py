"""The norms that the split takes for those of the stream, on every tiny architecture: each reads it, and no other norm does."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from irm_lite.analysis.base_controls.denominators import is_rms_norm, stream_norms
from irm_lite.analysis.statistics.channels import FINAL
from irm_lite.base.architecture import block_input, decoder_layers, hidden_state
from irm_lite.base.stream import stream_of
from irm_lite.core.errors import BaseModelError
from zoo.configs import ZOO, Tiny
from zoo.models import tiny_model

SIDE_BY_SIDE = {"phi", "cohere", "cohere2", "gpt_neox", "falcon", "mamba", "mamba2", "falcon_h1"}
LAYER_NORMS = {"olmo", "stablelm", "starcoder2", "nemotron", "gpt2", "phimoe"}
UNNAMED = {"lfm2"}  # the table has no name for the norm before attention
FINAL_ALONE = {"olmo2", "olmo3", "exaone4"}


@pytest.mark.slow
@pytest.mark.parametrize("tiny", ZOO, ids=lambda tiny: tiny.name)
def test_each_reads_the_stream_and_no_other_does(tiny: Tiny) -> None:
    model = tiny_model(tiny)
    kind = str(model.config.get_text_config(decoder=True).model_type)
    try:
        norms = stream_norms(model)
    except BaseModelError as error:
        assert kind in SIDE_BY_SIDE | LAYER_NORMS | UNNAMED
        assert "through RMSNorms" in str(error)
        return
    assert kind not in SIDE_BY_SIDE | LAYER_NORMS | UNNAMED
    assert len(norms) == (1 if kind in FINAL_ALONE else 1 + 2 * len(decoder_layers(model)))
    read, streams, blocks_of = inputs(model)
    named = {id(norm) for norm in norms.values()}
    for module, given in read.items():
        of_block = blocks_of.get(module)
        if of_block is None:
            continue
        near = [each for each in streams[of_block] if each.shape == given.shape]
        is_stream = any(torch.allclose(given, each, rtol=1e-5, atol=1e-6) for each in near)
        assert is_stream == (id(module) in named), type(module).__name__
    assert torch.equal(read[norms[FINAL]], streams[len(decoder_layers(model)) - 1][-1])


def inputs(model: Any) -> tuple[dict[nn.Module, Tensor], dict[int, list[Tensor]], dict[nn.Module, int]]:
    """What every RMSNorm was given; the stream in each block: before, after attention, after; and which block a norm is in."""
    stream, read = stream_of(model), {}
    streams: dict[int, list[Tensor]] = {}
    blocks_of: dict[nn.Module, int] = {}
    handles = []

    def keep(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        read[module] = args[0]

    def enter(number: int) -> Any:
        return lambda _module, args, kwargs: streams.update({number: [block_input(args, kwargs)]})

    def attended(number: int) -> Any:
        def add(_module: nn.Module, _args: object, output: object) -> None:
            streams[number].append(streams[number][0] + stream.multiplier * hidden_state(output))

        return add

    for number, block in enumerate(decoder_layers(model)):
        handles.append(block.register_forward_pre_hook(enter(number), with_kwargs=True))
        handles.append(stream.attention(block).register_forward_hook(attended(number)))
        handles.append(
            block.register_forward_hook(lambda _m, _a, output, number=number: streams[number].append(hidden_state(output)))
        )
        blocks_of |= dict.fromkeys(block.modules(), number)
    for module in model.modules():
        name = type(module).__name__
        if "Norm" in name and "Gated" not in name and is_rms_norm(module):
            handles.append(module.register_forward_pre_hook(keep))
    with torch.no_grad():
        model(torch.tensor([[3, 9, 20, 7, 11]]))
    for handle in handles:
        handle.remove()
    return read, streams, blocks_of
