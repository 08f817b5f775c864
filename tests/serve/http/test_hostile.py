"""What somebody found who tried to break the server: odd files, prompts that cost, defaults pulled away, an end in mid-answer."""

import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from openai import APIError, BadRequestError, ConflictError, InternalServerError

from irm_lite.base.vocabulary import Vocabulary
from irm_lite.llamacpp import Model
from irm_lite.serve.http.settings import Settings
from irm_lite.serve.http.shelf import Shelf
from irm_lite.serve.http.writing import Writing
from support.live_server import PATIENCE, LiveServer, live_server

SMALL = Settings("tiny", port=0, contexts=1, context=256)
QUESTION: list[Any] = [{"role": "user", "content": "ocean"}]


def test_files_whose_names_no_json_can_say(model: Model, vectors: Path, tmp_path: Path) -> None:
    shutil.copy(vectors / "angry.gguf", tmp_path / "angry.gguf")
    try:
        shutil.copy(vectors / "angry.gguf", tmp_path / os.fsdecode(b"\xff\xfe.gguf"))
    except OSError:
        pytest.skip("this file system takes no such name")
    os.mkfifo(tmp_path / "pipe.gguf")
    with live_server(model, Shelf(model, tmp_path), SMALL) as server:
        told: Any = server.client().get("/steering", cast_to=object)
        assert told["files"] == ["angry.gguf"]


def test_a_default_is_not_replaced_under_its_users(model: Model, vectors: Path, adapter: Path, tmp_path: Path) -> None:
    for each in (vectors / "angry.gguf", adapter):
        shutil.copy(each, tmp_path)
    with live_server(model, Shelf(model, tmp_path), SMALL) as server:
        client = server.client()
        client.post("/steering/load", body={"file": "angry.gguf"}, cast_to=object)
        client.post("/steering", body={"steering": [{"name": "angry", "layers": "1"}]}, cast_to=object)
        with pytest.raises(ConflictError, match="one of the defaults"):  # as an adapter it would have no layer 1
            client.post("/steering/load", body={"file": "tone.gguf", "name": "angry"}, cast_to=object)
        assert client.chat.completions.create(model="tiny", messages=QUESTION, max_tokens=2).usage


@pytest.mark.parametrize("chat", [False, True])
def test_a_text_that_cannot_fit_is_not_made_tokens(server: LiveServer, monkeypatch: pytest.MonkeyPatch, chat: bool) -> None:
    def refuse(*_: object) -> list[int]:
        raise AssertionError("half a minute of a core for a mebibyte of what the vocabulary does not have")

    monkeypatch.setattr(Vocabulary, "tokenize_prompt", refuse)
    text, client = "\N{PILE OF POO}" * 100_000, server.client()
    with pytest.raises(BadRequestError, match="bytes is more than") as refused:
        if chat:
            client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": text}])
        else:
            client.completions.create(model="tiny", prompt=text)
    assert refused.value.code == "context_length_exceeded"


def test_the_longest_text_that_fits_is_taken(server: LiveServer, model: Model) -> None:
    longest = max(range(model.n_vocabulary), key=lambda token: len(model.piece(token, special=True)))
    prompt = model.piece(longest, special=True).decode() * 200
    answer = server.client().completions.create(model="tiny", prompt=prompt, max_tokens=1)
    assert answer.usage is not None
    assert answer.usage.prompt_tokens <= 255


def test_answers_that_do_not_end_in_time_are_told_so(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = [Event(), Event()]

    class Endless(Writing):
        """Comes to three tokens, and no further."""

        def step(self) -> None:
            if len(self._column.written) < 3:
                super().step()
            else:
                begun[self.job.streamed].set()

    monkeypatch.setattr("irm_lite.serve.http.pool.Writing", Endless)
    settings = Settings("tiny", port=0, contexts=2, context=256, grace=0.2)
    with live_server(model, Shelf(model), settings) as server, ThreadPoolExecutor(1) as threads:
        client = server.client()
        stream = client.chat.completions.create(model="tiny", messages=QUESTION, max_tokens=9, stream=True)
        whole = threads.submit(client.chat.completions.create, model="tiny", messages=QUESTION, max_tokens=9)
        assert all(each.wait(PATIENCE) for each in begun)
        server.server.should_exit = True
        with pytest.raises(APIError, match="being stopped"):
            list(stream)
        with pytest.raises(InternalServerError) as refused:
            whole.result(PATIENCE)
    assert (refused.value.status_code, refused.value.code) == (503, "shutting_down")


def test_a_stream_with_its_usage(server: LiveServer) -> None:
    """As OpenAI's: one more event, without choices, before the end; read as the lines that they are."""
    with server.client().chat.completions.with_streaming_response.create(
        model="tiny:angry", messages=QUESTION, max_tokens=5, stream=True, stream_options={"include_usage": True}, stop=["\n\n"]
    ) as response:
        events = b"".join(response.iter_bytes()).decode().split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    documents = [json.loads(each.removeprefix("data: ")) for each in events[:-2]]
    assert all("\n" not in each and each.startswith("data: {") for each in events[:-2])
    assert documents[-1]["choices"] == []
    assert documents[-1]["usage"]["completion_tokens"] <= 5
    assert documents[-2]["choices"][0]["finish_reason"] in ("stop", "length")
