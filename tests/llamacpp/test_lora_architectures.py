"""A lora IRM on many architectures: what hooks do in transformers, llama.cpp does at the same maps; its observers see it all."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from irm_lite.base.architecture import decoder_layers, text_config
from irm_lite.base.maps import last_maps, width_read
from irm_lite.core.errors import InputError
from irm_lite.core.log_probabilities import kl
from irm_lite.llamacpp import Runtime
from irm_lite.steering.injection import inject
from irm_lite.steering.irm import IRM, build_irm
from support.zoo_ggufs import ARCHITECTURES, write_zoo
from zoo.comparing import exact_attention
from zoo.configs import ZOO
from zoo.models import tiny_model

STRENGTH, TOKENS = 0.7, 24


def lora_for(model: torch.nn.Module) -> IRM:
    """One of random weights on all blocks but the first."""
    layers = tuple(range(1, len(decoder_layers(model))))
    torch.manual_seed(3)
    width = width_read(last_maps(model, layers))
    irm = build_irm("lora", int(text_config(model).hidden_size), layers, "block", inner=width, rank=2).requires_grad_(False)
    irm.get_parameter("up").normal_()
    return irm


@pytest.mark.slow
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_llamacpp_adds_what_the_hooks_add(name: str, tmp_path: Path) -> None:
    folder, gguf = write_zoo(name, tmp_path)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    irm = lora_for(model)
    ids = torch.randint(3, 600, (TOKENS,), generator=torch.Generator().manual_seed(1)).tolist()
    seen: dict[int, Tensor] = {}
    with torch.no_grad():
        plain = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        with inject(model, irm, strength=STRENGTH) as injection:
            injection.observers.append(lambda layer, vector: seen.update({layer: vector[0]}))
            wanted = model(torch.tensor([ids])).logits[0].log_softmax(-1)
    there: dict[int, Tensor] = {}
    with exact_attention(), Runtime(gguf, irm=irm, n_ctx=256) as runtime:
        assert runtime.dynamic is not None
        runtime.dynamic.strength = STRENGTH
        runtime.dynamic.observers.append(lambda layer, vector: there.update({layer: vector}))
        found = torch.from_numpy(runtime.logits(ids))[:, : wanted.shape[1]].log_softmax(-1)
        last = torch.from_numpy(runtime.logits(ids, [TOKENS - 1]))[:, : wanted.shape[1]].log_softmax(-1)
    effect = float(kl(wanted, plain).mean())
    assert abs(float(kl(wanted, found).mean())) < min(1e-5, effect / 100)
    torch.testing.assert_close(last[0], found[-1], atol=1e-4, rtol=1e-4)
    final = len(decoder_layers(model)) - 1
    assert not there[final][:-1].any()  # the last block goes on with the wanted row alone
    for layer in irm.layers:
        size = float(seen[layer][-1].abs().max())
        assert (there[layer][-1] - seen[layer][-1]).abs().max() < 1e-2 * size  # llama.cpp looks GELU up in a table of float16


def test_a_mixture_of_experts_is_refused_by_what_it_lacks() -> None:
    model = tiny_model(next(each for each in ZOO if each.name == "qwen3_moe"))
    with pytest.raises(InputError, match=r"no single last map.*train another --irm|last one.*train another --irm"):
        last_maps(model, (1,))
