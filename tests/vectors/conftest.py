"""A tiny model in whose blocks 1 can be predicted."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from irm_lite.base.presets import presets
from support.once import Once
from support.tiny_models import write_gguf, write_hf_folder


@pytest.fixture(scope="session")
def steady_folder(once: Once) -> Path:
    """A tiny Llama whose embeddings have a part in common, as real models' streams do: 1 can be predicted in its blocks."""

    def make(folder: Path) -> None:
        write_hf_folder(folder / "llama", chat_template=presets()["llama-2-7b-chat"].chat_template)
        model = AutoModelForCausalLM.from_pretrained(folder / "llama", dtype=torch.float32)
        with torch.no_grad():
            model.model.embed_tokens.weight += torch.randn(64, generator=torch.Generator().manual_seed(0)) * 0.3
        model.save_pretrained(folder / "llama")

    return once("steady-llama", make) / "llama"


@pytest.fixture(scope="session")
def steady_gguf(steady_folder: Path, once: Once) -> Path:
    return once("steady-gguf", lambda folder: write_gguf(steady_folder, folder / "steady.gguf")) / "steady.gguf"
