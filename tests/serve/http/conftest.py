"""One tiny Llama, two vectors and a run, and a server of them."""

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
def shelf(model: Model, vectors: Path, run: Path) -> Shelf:
    return filled_shelf(model, vectors, run)


@pytest.fixture(scope="package")
def server(model: Model, vectors: Path, run: Path) -> Iterator[LiveServer]:
    settings = Settings("tiny", port=0, contexts=3, context=256)
    with live_server(model, filled_shelf(model, vectors, run), settings) as server:
        yield server


def filled_shelf(model: Model, vectors: Path, run: Path) -> Shelf:
    """angry, sad and dynamic by name; the folder to load from."""
    shelf = Shelf(model.fingerprint, model.path.name, vectors)
    for name in ("angry", "sad"):
        shelf.add_vector(name, str(vectors / f"{name}.gguf"))
    shelf.add_irm("dynamic", str(run))
    return shelf
