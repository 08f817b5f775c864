"""Fixtures: models made on the spot once a test run, and the demo model."""

import gc
import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

# Before torch, numpy and llama.cpp are loaded; what a test starts inherits it. Two processes of tests share the cores, and
# threads that wait for each other in turns are slower than one.
os.environ.update({"OMP_NUM_THREADS": "1", "OMP_THREAD_LIMIT": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"})
# not the user's, and each process of tests its own
os.environ["IRM_LITE_CACHE"] = str(Path(tempfile.gettempdir()) / f"irm-lite-tests-{os.environ.get('PYTEST_XDIST_WORKER', 'alone')}")
os.environ["HF_HUB_OFFLINE"] = "1"  # a test that would fetch something fails instead
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ |= {"TERM": "xterm-256color", "COLORTERM": ""}  # pictures of screens are the same in every terminal

import pytest

if TYPE_CHECKING:
    from irm_lite.base.load import Base
    from support.once import Once

pytest.register_assert_rewrite("support")


def pytest_collection_finish() -> None:
    """What is imported stays: the collections of garbage that each training asks for need not walk through it (0.3 s each)."""
    gc.freeze()


@pytest.fixture(autouse=True)
def no_measured_share() -> None:
    """What a training in this large process measured of it is not what the next test's predictions go by."""
    (Path(os.environ["IRM_LITE_CACHE"]) / "own-share.json").unlink(missing_ok=True)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """SIGINT is heeded, also where the tests run in the background of a shell that has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> "Once":
    """once(name, make): a folder that make(folder) fills, once for all processes of this test run."""
    from support.once import once_in

    return once_in(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="session")
def llama_folder(once: "Once") -> Path:
    """A tiny Llama with a SentencePiece tokenizer and Llama 2's chat template, as a Hugging Face folder."""
    from irm_lite.base.presets import presets
    from support.tiny_models import write_hf_folder

    template = presets()["llama-2-7b-chat"].chat_template
    return once("tiny-llama", lambda folder: write_hf_folder(folder / "llama", chat_template=template)) / "llama"


@pytest.fixture(scope="session")
def llama_base(llama_folder: Path) -> "Base":
    """It, loaded unquantised in float32. What a test injects or hooks into it, it takes out again."""
    from irm_lite.base.load import load_base

    return load_base(str(llama_folder), quant="none", device="cpu", dtype="float32")


@pytest.fixture(scope="session")
def llama_gguf(llama_folder: Path, once: "Once") -> Path:
    """The same model as an F32 GGUF."""
    from irm_lite.base.presets import presets
    from support.tiny_models import write_gguf

    template = presets()["llama-2-7b-chat"].chat_template
    return once("tiny-gguf", lambda folder: write_gguf(llama_folder, folder / "tiny.gguf", chat_template=template)) / "tiny.gguf"


@pytest.fixture(scope="session")
def demo_gguf() -> Path:
    """The demo model's own file, from its package."""
    from irm_lite.base.presets import EMBEDDED, find_gguf

    return find_gguf(EMBEDDED)


@pytest.fixture(scope="session")
def demo_gguf_f32(demo_gguf: Path, once: "Once") -> Path:
    """The demo model's weights as an F32 GGUF, made by llama.cpp."""
    import llama_cpp

    def make(folder: Path) -> None:
        options = llama_cpp.llama_model_quantize_default_params()
        options.ftype = llama_cpp.LLAMA_FTYPE_ALL_F32
        options.allow_requantize = True
        target = folder / "demo-f32.gguf"
        assert llama_cpp.llama_model_quantize(str(demo_gguf).encode(), str(target).encode(), options) == 0

    return once("demo-f32", make) / "demo-f32.gguf"
