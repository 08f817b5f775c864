"""LoRA adapters over HTTP: by name as vectors are, beside them, loaded and unloaded, refused where they do not fit."""

import json
import shutil
import weakref
from pathlib import Path
from typing import Any

import pytest
from openai import BadRequestError, OpenAI

from irm_lite.cli.main import run as irm_lite
from irm_lite.cli.output import Output
from irm_lite.cli.verbs.serve_http import _fill
from irm_lite.core.errors import InputError, VectorError
from irm_lite.llamacpp import Model, adapters
from irm_lite.serve.http.schema import Item
from irm_lite.serve.http.settings import Settings
from irm_lite.serve.http.shelf import Shelf
from irm_lite.serve.http.writing import Writing
from serve.http.conftest import random_adapter
from support.live_server import LiveServer, live_server

QUESTION: list[Any] = [{"role": "user", "content": "ocean"}]
SMALL = Settings("tiny", port=0, contexts=1, context=256)


def said(client: OpenAI, model: str = "tiny", *steering: dict[str, Any], **more: Any) -> str:
    body = {"steering": list(steering)} if steering else {}
    answer = client.chat.completions.create(model=model, messages=QUESTION, max_tokens=12, extra_body=body, **more)
    return answer.choices[0].message.content or ""


@pytest.mark.parametrize("with_vector", [False, True])
def test_it_is_what_generate_says(
    server: LiveServer, llama_gguf: Path, adapter: Path, vectors: Path, capsys: pytest.CaptureFixture[str], with_vector: bool
) -> None:
    flags = ["--gguf", str(llama_gguf), "--max-new-tokens", "12", "--context", "256", "--temperature", "0.9", "--seed", "5"]
    vector = ["--vector", f"{vectors / 'angry.gguf'}:0.5"] if with_vector else []
    assert irm_lite(["generate", *flags, "--adapter", f"{adapter}:0.8", *vector, "-p", "ocean", "--json"]) == 0
    expected = json.loads(capsys.readouterr().out)["text"]
    client = server.client()
    drawn: dict[str, Any] = {"temperature": 0.9, "seed": 5}
    steering = [{"name": "tone", "scale": 0.8}, *([{"name": "angry", "scale": 0.5}] if with_vector else [])]
    assert said(client, "tiny", *steering, **drawn) == expected
    assert said(client, "tiny:tone@0.8+angry@0.5" if with_vector else "tiny:tone@0.8", **drawn) == expected
    assert said(client, "tiny:tone@0.5", {"name": "tone", "scale": 0.3}, *steering[1:], **drawn) == expected  # adds up
    assert said(client, **drawn) != expected  # the context has been left as it was


def test_it_is_listed_and_told(server: LiveServer) -> None:
    client = server.client()
    assert {"tiny:tone", "tiny:tone@0.5"} <= {each.id for each in client.models.list()}
    told: Any = client.get("/steering", cast_to=object)
    expected = {"name": "tone", "kind": "adapter", "file": "tone.gguf", "layers": None, "warning": None, "note": None}
    assert expected in told["available"]
    assert client.get("/steering/tone", cast_to=object) == {**expected, "rows": []}
    body = {"steering": [{"name": "tone", "scale": 2}], "norms": True, "outputs": True}
    answer = client.chat.completions.create(model="tiny", messages=QUESTION, max_tokens=3, extra_body=body)
    assert (answer.model_extra or {})["steering"] == [{"name": "tone", "scale": 2.0}]
    choice = answer.choices[0].model_extra or {}
    assert choice["outputs"] is None
    assert {each["norm"] for each in choice["tokens"]} == {None}


@pytest.mark.parametrize(
    ("steering", "code"),
    [
        ([{"name": "tone", "layers": "1"}], "no_layers"),
        ([{"name": "tone"}, {"name": "dynamic"}], "steering_conflict"),
        ([{"name": "tone", "scale": 1e7}], "scale_out_of_range"),
    ],
)
def test_what_cannot_be_asked_of_it(server: LiveServer, steering: list[dict[str, Any]], code: str) -> None:
    with pytest.raises(BadRequestError) as refused:
        said(server.client(), "tiny", *steering)
    assert refused.value.code == code


def test_loaded_and_unloaded_while_it_writes(model: Model, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(adapter, tmp_path / "tone.gguf")
    random_adapter(tmp_path / "wide.gguf", 1, n_in=64)
    random_adapter(tmp_path / "alien.gguf", 1, architecture="gemma")
    freed: list[Any] = []
    free = adapters.free

    def counted(handle: Any) -> None:
        freed.append(handle)
        free(handle)

    monkeypatch.setattr("irm_lite.serve.http.shelf.free", counted)
    with live_server(model, Shelf(model, tmp_path), SMALL) as server:
        client = server.client()

        def post(what: str, **body: Any) -> Any:
            return client.post(f"/steering{what}", body=body, cast_to=object)

        plain = said(client)
        told = post("/load", file="tone.gguf")
        assert [each["kind"] for each in told["available"]] == ["adapter"]
        toned = said(client, "tiny:tone@0.8")
        post("", steering=[{"name": "tone", "scale": 0.8}])
        assert said(client) == toned != plain
        post("", steering=[])
        stream = client.chat.completions.create(model="tiny:tone@0.8", messages=QUESTION, max_tokens=12, stream=True)
        pieces = [next(stream)]
        post("/unload", name="tone")
        pieces += stream
        assert "".join(each.choices[0].delta.content or "" for each in pieces) == toned
        with pytest.raises(BadRequestError, match="nothing called 'tone'"):
            said(client, "tiny:tone")
        assert said(client) == plain
        for _ in range(3):
            post("/load", file="tone.gguf", name="again")
            assert said(client, "tiny:again@0.8") == toned
            post("/unload", name="again")
        assert len(freed) >= 2  # all but what the context still has, and what is freed with the next one
        for name, message in (("wide", "goes from 64 to 64"), ("alien", "made for gemma")):
            with pytest.raises(BadRequestError, match=message) as refused:
                post("/load", file=f"{name}.gguf")
            assert refused.value.code == "adapter_does_not_fit"
            assert str(tmp_path) not in refused.value.message
        with pytest.raises(BadRequestError, match="not a control vector|no control vector"):
            post("/load", file="tone.gguf", kind="vector")
        assert said(client) == plain


def test_nothing_is_freed_that_an_answer_is_steered_by(shelf: Shelf) -> None:
    steering = shelf.resolve([Item(name="tone")])
    held = weakref.ref(steering.adapters[0][0])
    shelf.unload("tone")
    assert held() is not None
    del steering
    assert held() is None


def test_the_slider_moves_in_mid_answer(model: Model, shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the path that the page uses; what is said is in test_side_by_side.py."""
    moved: list[str] = []

    class Moving(Writing):
        def step(self) -> None:
            if len(self._column.written) == 5 and not moved:
                moved.append(self._column.text)
                self.job.turned = shelf.resolve([Item(name="tone", scale=-2)])
            super().step()

    monkeypatch.setattr("irm_lite.serve.http.pool.Writing", Moving)
    with live_server(model, shelf, SMALL) as server:
        client = server.client()
        turned, whole = said(client, "tiny:tone@2"), said(client, "tiny:tone@2")
    assert turned.startswith(moved[0])
    assert whole.startswith(moved[0])
    assert turned != whole


def test_a_flag_of_the_command_names_it(model: Model, adapter: Path, vectors: Path) -> None:
    shelf = Shelf(model)
    with pytest.raises(VectorError, match="not a LoRA adapter"):
        shelf.add_adapter("angry", str(vectors / "angry.gguf"))
    shelf.add_adapter("tone", f"{adapter}:0.5")
    with pytest.raises(InputError, match=r"two sources are called 'tone'.*--vector OTHER="):
        _fill(shelf, {"vector": [f"tone={vectors / 'angry.gguf'}"], "adapter": [], "irm": []}, Output(None))
    ((_, scale),) = shelf.resolve([Item(name="tone", scale=3)]).adapters
    assert scale == 1.5
