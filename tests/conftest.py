"""Fixtures: models made on the spot once a session, and the demo model."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"  # a test that would fetch something fails instead
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@pytest.fixture
def interruptible() -> Iterator[None]:
    """SIGINT is heeded, also where the tests run in the background of a shell that has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def llama_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama with a SentencePiece tokenizer and Llama 2's chat template, as a Hugging Face folder."""
    from irm_lite.base.presets import presets
    from support.tiny_models import write_hf_folder

    return write_hf_folder(tmp_path_factory.mktemp("tiny") / "llama", chat_template=presets()["llama-2-7b-chat"].chat_template)


@pytest.fixture(scope="session")
def llama_gguf(llama_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model as an F32 GGUF."""
    from irm_lite.base.presets import presets
    from support.tiny_models import write_gguf

    target = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    return write_gguf(llama_folder, target, chat_template=presets()["llama-2-7b-chat"].chat_template)


@pytest.fixture(scope="session")
def demo_gguf() -> Path:
    """The demo model's own file, from its package."""
    from irm_lite.base.presets import EMBEDDED, find_gguf

    return find_gguf(EMBEDDED)


@pytest.fixture(scope="session")
def demo_gguf_f32(demo_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The demo model's weights as an F32 GGUF, made by llama.cpp."""
    import llama_cpp

    target = tmp_path_factory.mktemp("f32") / "demo-f32.gguf"
    options = llama_cpp.llama_model_quantize_default_params()
    options.ftype = llama_cpp.LLAMA_FTYPE_ALL_F32
    options.allow_requantize = True
    assert llama_cpp.llama_model_quantize(str(demo_gguf).encode(), str(target).encode(), options) == 0
    yield target
    target.unlink()
