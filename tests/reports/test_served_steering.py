"""Serving a steered model, people had to restart for each strength, got an answer of an old cache, and had clients that could send
nothing but a model's name."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from irm_lite.llamacpp import Model, Runtime
from irm_lite.serve.http.settings import Settings
from irm_lite.serve.http.shelf import Shelf
from irm_lite.steering.control_vector import ControlVector
from support.live_server import LiveServer, live_server

ASKED: list[Any] = [{"role": "user", "content": "What is salt?"}]


@pytest.fixture(scope="module")
def vector() -> ControlVector:
    generator = np.random.default_rng(5)
    return ControlVector({layer: generator.normal(0, 0.5, 64).astype(np.float32) for layer in (1, 2)}, "llama")


@pytest.fixture(scope="module")
def server(llama_gguf: Path, vector: ControlVector, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    path = tmp_path_factory.mktemp("v") / "mood.gguf"
    vector.save(path)
    with Model(llama_gguf) as model:
        shelf = Shelf(model)
        shelf.add_vector("mood", str(path))
        with live_server(model, shelf, Settings("tiny", port=0, contexts=1, context=256)) as server:
            yield server


def said(server: LiveServer, **more: Any) -> str:
    settings: dict[str, Any] = {"model": "tiny", "messages": ASKED, "max_tokens": 10}
    answer = server.client().chat.completions.create(**(settings | more))
    return str(answer.choices[0].message.content)


def test_llama_server_has_to_be_restarted_for_another_strength(server: LiveServer, vector: ControlVector) -> None:
    """llama.cpp 10685 and 6316: the vector is a flag of the start."""
    with Runtime(server.house.model, n_ctx=256) as runtime:
        for scale in (0.5, 1.0, -1.0, 0.5):
            runtime.set_vector(vector * scale)
            expected = "".join(runtime.generate(ASKED, max_new_tokens=10))
            assert said(server, extra_body={"steering": [{"name": "mood", "scale": scale}]}) == expected


def test_a_cache_of_the_strength_before_went_on_under_the_next(server: LiveServer) -> None:
    """A prompt that is cached is not read again, and its keys and values are of the old strength, unless somebody thinks of it."""
    before = said(server, extra_body={"cache_prompt": True})
    turned = said(server, model="tiny:mood@1.5", extra_body={"cache_prompt": True})
    assert said(server, extra_body={"cache_prompt": True}) == before != turned
    assert said(server, model="tiny:mood@1.5") == turned


def test_a_program_that_can_only_send_a_models_name(server: LiveServer) -> None:
    """Most chat programs have a list of models, and no field for anything else."""
    listed = [each.id for each in server.client().models.list()]
    assert "tiny:mood@0.5" in listed
    assert said(server, model="tiny:mood@0.5") == said(server, extra_body={"steering": [{"name": "mood", "scale": 0.5}]})


def test_a_defaults_change_by_one_is_not_anothers_answer(server: LiveServer) -> None:
    """A server-wide setting was turned by one program while another's request waited."""
    plain = said(server)
    steered = server.client().post("/steering", body={"steering": [{"name": "mood"}]}, cast_to=object)
    assert steered
    try:
        assert said(server) == said(server, model="tiny:mood") != plain
        assert said(server, extra_body={"steering": []}) == plain  # who says what steers gets that
    finally:
        server.client().post("/steering", body={"steering": []}, cast_to=object)
    assert said(server) == plain
