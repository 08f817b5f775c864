"""One tiny Llama, two vectors, an adapter and a run, and a server of them."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from irm_lite.base.fingerprint import fingerprint_gguf
from irm_lite.config import TrainConfig
from irm_lite.llamacpp import Model
from irm_lite.runs.directory import RunDirectory
from irm_lite.serve.http.settings import Settings
from irm_lite.serve.http.shelf import Shelf
from irm_lite.steering.adapter import Adapter, Factors
from irm_lite.steering.control_vector import ControlVector
from irm_lite.steering.irm import build_irm
from irm_lite.steering.irm_files import save_irm
from support.live_server import LiveServer, live_server

LAYERS = (1, 2)


@pytest.fixture(scope="package")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with angry.gguf, sad.gguf, and one of another model's size."""
    folder = tmp_path_factory.mktemp("vectors")
    for seed, name in enumerate(("angry", "sad")):
        generator = np.random.default_rng(seed)
        ControlVector({layer: generator.normal(0, 0.5, 64).astype(np.float32) for layer in LAYERS}, "llama").save(
            folder / f"{name}.gguf"
        )
    ControlVector({1: np.ones(32, dtype=np.float32)}, "llama").save(folder / "other.gguf")
    return folder


def random_adapter(path: Path, seed: int, n_in: int = 128, architecture: str = "llama") -> Path:
    """Rank 2 beside each block's last map."""
    generator = np.random.default_rng(seed)
    shapes = ((2, n_in), (64, 2))
    factors = {
        f"blk.{n}.ffn_down": Factors(*(generator.normal(0, 0.4, shape).astype(np.float32) for shape in shapes)) for n in LAYERS
    }
    Adapter(factors, architecture, 2.0).save(path)
    return path


@pytest.fixture(scope="package")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """tone.gguf"""
    return random_adapter(tmp_path_factory.mktemp("adapters") / "tone.gguf", seed=7)


@pytest.fixture(scope="package")
def run(llama_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a random IRM."""
    torch.manual_seed(0)
    irm = build_irm("lite", 64, LAYERS, "block", width=32, rank=4).requires_grad_(False)
    for name, parameter in irm.named_parameters():
        if name in ("up", "bias"):
            parameter.normal_(0, 0.5)
    directory = RunDirectory(tmp_path_factory.mktemp("runs") / "odd")
    directory.create(TrainConfig(), fingerprint_gguf(llama_gguf), {})
    save_irm(irm, directory.path)
    return directory.path


@pytest.fixture(scope="package")
def model(llama_gguf: Path) -> Iterator[Model]:
    with Model(llama_gguf) as model:
        yield model


@pytest.fixture
def shelf(model: Model, vectors: Path, run: Path, adapter: Path) -> Shelf:
    return filled_shelf(model, vectors, run, adapter)


@pytest.fixture(scope="package")
def server(model: Model, vectors: Path, run: Path, adapter: Path) -> Iterator[LiveServer]:
    settings = Settings("tiny", port=0, contexts=3, context=256)
    with live_server(model, filled_shelf(model, vectors, run, adapter), settings) as server:
        yield server


def filled_shelf(model: Model, vectors: Path, run: Path, adapter: Path) -> Shelf:
    """angry, sad, dynamic and tone by name; the folder to load from."""
    shelf = Shelf(model, vectors)
    for name in ("angry", "sad"):
        shelf.add_vector(name, str(vectors / f"{name}.gguf"))
    shelf.add_irm("dynamic", str(run))
    shelf.add_adapter("tone", str(adapter))
    return shelf
