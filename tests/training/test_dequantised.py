"""What is multiplied by weights that were unpacked once is what bitsandbytes makes with its own."""

from pathlib import Path
from typing import Any

import pytest
import torch

from irm_lite.base.architecture import decoder_layers
from irm_lite.base.load import load_base
from irm_lite.config import TrainConfig
from irm_lite.training import train as training
from irm_lite.training.setup import prepare as preparing
from irm_lite.training.step.dequantised import dequantised_once
from support.tiny_models import write_hf_folder


@pytest.mark.parametrize("kind", ["llama", "qwen2"])  # Qwen2's have biases
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(("quant", "double_quant"), [("nf4", False), ("nf4", True), ("fp4", False)])
def test_states_and_gradients_are_the_same_to_the_last_bit(
    tmp_path: Path, kind: str, dtype: Any, quant: Any, double_quant: bool
) -> None:
    folder = write_hf_folder(tmp_path / "base", kind, chat_template="{{ messages[0].content }}")
    model = load_base(str(folder), device="cpu", quant=quant, double_quant=double_quant, dtype=dtype).model
    blocks = decoder_layers(model)
    torch.manual_seed(0)
    stream = torch.randn(1, 9, 64, dtype=getattr(torch, dtype))

    def through() -> list[torch.Tensor]:
        given = stream.clone().requires_grad_()
        hidden = model(inputs_embeds=given, use_cache=False).logits
        hidden.float().square().sum().backward()
        assert given.grad is not None
        return [hidden.detach(), given.grad]

    plain = through()
    with dequantised_once(blocks[1:]):
        assert [any("forward" in vars(each) for each in block.modules()) for block in blocks] == [
            False,
            *[True] * (len(blocks) - 1),
        ]
        kept = through()
    assert all(torch.equal(a, b) for a, b in zip(plain, kept, strict=True))
    assert not any("forward" in vars(each) for each in model.modules())


@pytest.mark.slow
def test_a_training_is_the_same_with_and_without(llama_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = load_base(str(llama_folder), device="cpu", dtype="bfloat16")
    patched: list[int] = []
    losses = []
    for name, free in (("without", 10**9), ("with", 10**12)):
        monkeypatch.setattr(preparing, "free_bytes", lambda device, free=free: free)

        def spy(blocks: Any) -> Any:
            patched.append(len(blocks))
            return dequantised_once(blocks)

        monkeypatch.setattr(training, "dequantised_once", spy)
        config = TrainConfig(irm="lite", model="x", device="cpu", max_steps=3, eval_steps=3, sample_tokens=0, layers="1-2")
        run = training.train(config, tmp_path / name, base=base)
        losses.append([event["loss"] for event in run.directory.events.read() if event["kind"] == "step"])
    assert patched == [0, 1]  # of three blocks the last alone reads what the IRM gives
    assert losses[0] == losses[1]
