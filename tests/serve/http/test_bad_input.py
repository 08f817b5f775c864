"""Whatever comes in: an error of OpenAI's form with a code, never a 500, and the server goes on."""

import http.client
import json
import socket
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from irm_lite.llamacpp import Model
from irm_lite.serve.http.settings import Limits, Settings
from irm_lite.serve.http.shelf import Shelf
from support.live_server import PATIENCE, LiveServer, live_server

USER = [{"role": "user", "content": "Why?"}]


def send(
    port: int, path: str, body: bytes | str | None, headers: dict[str, str] | None = None, method: str = "POST"
) -> tuple[int, dict[str, Any]]:
    """Status and document."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request(method, path, body, {"Content-Type": "application/json"} | (headers or {}))
        response = connection.getresponse()
        text = response.read().decode()
    finally:
        connection.close()
    return response.status, json.loads(text) if text.startswith("{") else {"text": text}


def code(found: tuple[int, dict[str, Any]]) -> tuple[int, str]:
    error = found[1]["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    return found[0], error["code"]


def chat(**more: Any) -> str:
    return json.dumps({"model": "tiny", "messages": USER, "max_tokens": 2} | more)


@pytest.mark.parametrize(
    ("body", "status", "expected"),
    [
        (chat(steering=[{"name": "joy"}]), 400, "unknown_steering"),
        (chat(model="tiny:joy@2"), 400, "unknown_steering"),
        (chat(model="gpt-4"), 404, "model_not_found"),
        (chat(model="tiny:angry@0.8@2"), 404, "model_not_found"),
        (chat(model="tiny:angry@nan"), 400, "scale_out_of_range"),
        (chat(steering=[{"name": "angry", "scale": float("nan")}]), 400, "scale_out_of_range"),
        (chat(steering=[{"name": "angry", "scale": 1e7}]), 400, "scale_out_of_range"),
        (chat(steering=[{"name": "angry", "scale": "0.8"}]), 400, "invalid_parameter"),
        (chat(steering=[{"name": "angry", "layers": "1-99"}]), 400, "layers_out_of_range"),
        (chat(steering=[{"name": "angry", "layers": "some"}]), 400, "layers_out_of_range"),
        (chat(steering=[{"name": "angry", "layers": "0"}]), 400, "layers_out_of_range"),
        (chat(steering=[{"name": "angry", "scala": 1}]), 400, "unknown_parameter"),
        (chat(steering=[{"name": "angry"}] * 33), 400, "invalid_parameter"),
        (chat(steering=[{"name": "angry"}, {"name": "dynamic"}]), 400, "steering_conflict"),
        (chat(messages=[]), 400, "invalid_parameter"),
        (chat(messages=[{"role": "tool", "content": "x"}]), 400, "invalid_messages"),
        (chat(messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]), 400, "invalid_messages"),
        (chat(messages=[{"role": "user", "content": "\ud800"}]), 400, "invalid_messages"),
        (chat(messages=[{"role": "user", "content": "sea " * 500}]), 400, "context_length_exceeded"),
        (json.dumps({"model": "tiny"}), 400, "missing_parameter"),
        (chat(max_tokens=0), 400, "invalid_parameter"),
        (chat(temperature=-1), 400, "invalid_parameter"),
        (chat(temperature=float("inf")), 400, "invalid_parameter"),
        (chat(seed=-1), 400, "invalid_parameter"),
        (chat(top_p=0), 400, "invalid_parameter"),
        (chat(stop=[""]), 400, "invalid_parameter"),
        (chat(n=2), 400, "unsupported_parameter"),
        (chat(logprobs=True), 400, "unsupported_parameter"),
        (chat(tools=[{"type": "function"}]), 400, "unsupported_parameter"),
        ("{", 400, "invalid_json"),
        ("[" * 100_000, 400, "invalid_json"),
        ("\xff\xfe".encode("latin-1"), 400, "invalid_json"),
        ('{"seed": ' + "9" * 5000 + "}", 400, "invalid_json"),
        ("null", 400, "invalid_parameter"),
        ("[]", 400, "invalid_parameter"),
        ("", 400, "missing_parameter"),
    ],
)
def test_bad_chats(server: LiveServer, body: bytes | str, status: int, expected: str) -> None:
    assert code(send(server.port, "/v1/chat/completions", body)) == (status, expected)


def test_a_template_that_refuses_the_roles(llama_gguf: Path) -> None:
    template = (
        "{% if messages[0].role != 'user' %}{{ raise_exception('the user speaks first') }}{% endif %}{{ messages[0].content }}"
    )
    with Model(llama_gguf, chat_template=template) as model:
        shelf = Shelf(model)
        with live_server(model, shelf, Settings("tiny", port=0, contexts=1, context=256)) as server:
            found = send(server.port, "/v1/chat/completions", chat(messages=[{"role": "assistant", "content": "Why?"}]))
            assert code(found) == (400, "template_refused")
            assert "the user speaks first" in found[1]["error"]["message"]
            assert send(server.port, "/v1/chat/completions", chat())[0] == 200


def test_an_unknown_name_lists_the_known(server: LiveServer) -> None:
    _, document = send(server.port, "/v1/chat/completions", chat(steering=[{"name": "joy"}]))
    assert "angry, sad, dynamic" in document["error"]["message"]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"prompt": ["a", "b"]}, "unsupported_parameter"),
        ({"prompt": [640]}, "invalid_parameter"),
        ({"prompt": [-1]}, "invalid_parameter"),
        ({"prompt": []}, "invalid_parameter"),
        ({"prompt": [1] * 256}, "context_length_exceeded"),
        ({"prompt": "a", "echo": True}, "unsupported_parameter"),
        ({"prompt": {}}, "invalid_parameter"),
    ],
)
def test_bad_completions(server: LiveServer, body: dict[str, Any], expected: str) -> None:
    assert code(send(server.port, "/v1/completions", json.dumps(body))) == (400, expected)


def test_what_clients_send_without_meaning_it_is_taken(server: LiveServer) -> None:
    extra = {
        "n": 1,
        "presence_penalty": 0.0,
        "frequency_penalty": 0,
        "logit_bias": {},
        "tools": [],
        "response_format": {"type": "text"},
    }
    status, _ = send(
        server.port, "/v1/chat/completions", chat(**extra, store=False, metadata={}, user="me", stream_options=None, stop=None)
    )
    assert status == 200


def test_other_paths_and_methods(server: LiveServer) -> None:
    assert code(send(server.port, "/v1/embeddings", "{}")) == (404, "not_found")
    assert code(send(server.port, "/v1/chat/completions", None, method="GET")) == (405, "method_not_allowed")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
PATHS = ["/v1/chat/completions", "/v1/completions", "/v1/steering", "/v1/steering/unload", "/v1/steering/load"]
KEYS = ("model", "stream", "temperature", "seed", "stop", "norms", "top_p", "user", "n", "prompt", "file", "name")
NAMES = st.sampled_from(["angry", "sad", "dynamic"])
ROLES = st.sampled_from(["user", "assistant", "system"])
ITEM = {"name": NAMES | JSON, "scale": st.floats() | JSON, "layers": st.text(max_size=5) | JSON}
MESSAGE = {"role": ROLES | JSON, "content": st.text(max_size=9) | JSON}
ITEMS = st.lists(st.fixed_dictionaries({}, optional=ITEM) | JSON, max_size=3)
MESSAGES = st.lists(st.fixed_dictionaries({}, optional=MESSAGE) | JSON, max_size=3)
OBJECTS = st.fixed_dictionaries(
    {"messages": MESSAGES | st.just(USER), "max_tokens": st.just(1) | st.integers(-2, 3)},
    optional=dict.fromkeys(KEYS, JSON) | {"steering": ITEMS | JSON},
)
BODIES = (OBJECTS | JSON).map(json.dumps).map(str.encode) | st.binary(max_size=40)


@pytest.mark.slow
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=st.sampled_from(PATHS), body=BODIES)
def test_no_request_makes_a_500(server: LiveServer, path: str, body: bytes) -> None:
    status, document = send(server.port, path, body)
    if status != 200:
        assert 400 <= code((status, document))[0] < 500


@pytest.fixture(scope="module")
def small(model: Model, vectors: Path, run: Path) -> Any:
    """A server with a key, a named origin and small limits."""
    shelf = Shelf(model)
    shelf.add_vector("angry", str(vectors / "angry.gguf"))
    limits = Limits(body_bytes=2000, body_seconds=0.3, tokens=3)
    told = Settings("tiny", port=0, contexts=1, context=256, key="a-long-secret", origins=("http://good.example",), limits=limits)
    with live_server(model, shelf, told) as server:
        yield server


AUTH = {"Authorization": "Bearer a-long-secret"}


def test_a_key_is_asked_for(small: LiveServer) -> None:
    for headers in (
        {},
        {"Authorization": "Bearer a-long-secreT"},
        {"Authorization": "Basic a-long-secret"},
        {"Authorization": "Bearer é"},
    ):
        assert code(send(small.port, "/v1/chat/completions", chat(), headers)) == (401, "invalid_api_key")
        assert send(small.port, "/v1/models", None, headers, "GET")[0] == 401
    assert send(small.port, "/v1/chat/completions", chat(), AUTH)[0] == 200
    assert send(small.port, "/health", None, method="GET") == (200, {"status": "ok"})
    assert small.client("a-long-secret").models.list().data


def test_pages_of_others_may_not_ask_unless_named(small: LiveServer) -> None:
    def ask(origin: str, host: str | None = None) -> int:
        return send(small.port, "/v1/chat/completions", chat(), {"Origin": origin, **AUTH, **({"Host": host} if host else {})})[0]

    assert ask("http://evil.example") == 403
    assert ask("null") == 403
    assert ask("http://good.example") == 200
    assert ask(f"http://127.0.0.1:{small.port}") == 200  # its own page
    assert ask("http://evil.example", host="evil.example") == 403  # a name of a stranger's that points here
    assert ask("http://good.example", host="good.example") == 200
    for kind in ("text/plain", "application/x-www-form-urlencoded"):  # which a page may send unasked
        assert code(send(small.port, "/v1/steering", "{}", {"Content-Type": kind, **AUTH})) == (415, "unsupported_media_type")


def test_browsers_are_told_which_pages_may_ask(small: LiveServer, server: LiveServer) -> None:
    def told(port: int, origin: str) -> tuple[int, str | None]:
        asked = {"Origin": origin, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        connection.request("OPTIONS", "/v1/chat/completions", headers=asked)
        response = connection.getresponse()
        connection.close()
        return response.status, response.getheader("access-control-allow-origin")

    assert told(small.port, "http://good.example") == (200, "http://good.example")
    assert told(small.port, "http://evil.example") == (400, None)
    assert told(server.port, "http://good.example") == (403, None)


def test_limits_hold(small: LiveServer) -> None:
    long = chat(messages=[{"role": "user", "content": "x" * 2000}])
    assert code(send(small.port, "/v1/chat/completions", long, AUTH)) == (413, "body_too_large")
    _, document = send(small.port, "/v1/chat/completions", chat(max_tokens=100_000), AUTH)
    assert document["usage"]["completion_tokens"] <= 3
    head = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    head += "Authorization: Bearer a-long-secret\r\n"
    with socket.create_connection(("127.0.0.1", small.port), PATIENCE) as slow:
        slow.sendall(f"{head}Content-Length: 100\r\n\r\n{{".encode())
        assert slow.recv(65536).startswith(b"HTTP/1.1 408")
    with socket.create_connection(("127.0.0.1", small.port), PATIENCE) as chunked:
        chunked.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\nfff\r\n{'x' * 0xFFF}\r\n".encode())
        assert chunked.recv(65536).startswith(b"HTTP/1.1 413")
    assert send(small.port, "/health", None, method="GET")[0] == 200


def test_defaults_loading_and_unloading(model: Model, shelf: Shelf, vectors: Path) -> None:
    with live_server(model, shelf, Settings("tiny", port=0, contexts=1, context=256)) as server:

        def say(model: str = "tiny", **more: Any) -> str:
            status, document = send(server.port, "/v1/chat/completions", chat(model=model, max_tokens=8, **more))
            assert status == 200
            return str(document["choices"][0]["message"]["content"])

        plain, angry = say(), say("tiny:angry@0.8")
        assert plain != angry
        status, document = send(server.port, "/v1/steering", json.dumps({"steering": [{"name": "angry", "scale": 0.8}]}))
        assert (status, document["steering"]) == (200, [{"name": "angry", "scale": 0.8}])
        assert [say(), say(steering=[]), say("tiny:sad")] == [angry, plain, say("tiny:sad", steering=[])]
        assert code(send(server.port, "/v1/steering/unload", '{"name": "angry"}')) == (409, "in_use")
        assert code(send(server.port, "/v1/steering", '{"steering": [{"name": "joy"}]}')) == (400, "unknown_steering")
        assert send(server.port, "/v1/steering", '{"steering": []}')[0] == 200
        assert send(server.port, "/v1/steering/unload", '{"name": "angry"}')[0] == 200
        assert code(send(server.port, "/v1/chat/completions", chat(model="tiny:angry"))) == (400, "unknown_steering")
        status, document = send(server.port, "/v1/steering/load", '{"file": "angry.gguf", "name": "cross"}')
        assert status == 200
        assert say("tiny:cross@0.8") == angry
        assert send(server.port, "/v1/steering", None, method="GET")[1] == document
        assert document["files"] == ["angry.gguf", "other.gguf", "sad.gguf"]
        assert {each["name"]: each["layers"] for each in document["available"]}["cross"] == "1-2"


@pytest.mark.parametrize(
    ("file", "status", "expected"),
    [
        ("other.gguf", 400, "vector_does_not_fit"),
        ("absent.gguf", 404, "not_in_folder"),
        ("../secret.gguf", 404, "not_in_folder"),
        ("link.gguf", 404, "not_in_folder"),
        ("/etc/passwd", 404, "not_in_folder"),
        ("angry.gguf\u0000", 404, "not_in_folder"),
        ("broken.gguf", 400, "vector_does_not_fit"),
    ],
)
def test_only_sound_vectors_of_the_folder_are_loaded(
    model: Model, vectors: Path, tmp_path: Path, file: str, status: int, expected: str
) -> None:
    folder = tmp_path / "vectors"
    folder.mkdir()
    for name in ("angry", "other"):
        (folder / f"{name}.gguf").write_bytes((vectors / f"{name}.gguf").read_bytes())
    (tmp_path / "secret.gguf").write_bytes((vectors / "sad.gguf").read_bytes())
    (folder / "link.gguf").symlink_to(tmp_path / "secret.gguf")
    (folder / "broken.gguf").write_bytes(b"GGUF\0")
    shelf = Shelf(model, folder)
    with live_server(model, shelf, Settings("tiny", port=0, contexts=1, context=256)) as server:
        found = send(server.port, "/v1/steering/load", json.dumps({"file": file}))
        assert code(found) == (status, expected)
        assert str(tmp_path) not in found[1]["error"]["message"]  # where it lies is nobody's business
        assert shelf.names == []


def test_metrics_count(server: LiveServer) -> None:
    def counted() -> dict[str, float]:
        _, document = send(server.port, "/metrics", None, method="GET")
        lines = [line.rpartition(" ") for line in document["text"].splitlines() if not line.startswith("#")]
        return {name: float(value) for name, _, value in lines}

    before = counted()
    _, document = send(server.port, "/v1/chat/completions", chat(max_tokens=2))
    after = counted()
    name = 'irm_lite_requests_total{path="/v1/chat/completions",status="200"}'
    assert after[name] == before.get(name, 0) + 1
    grown = {each: after[f"irm_lite_{each}_total"] - before[f"irm_lite_{each}_total"] for each in ("tokens", "prompt_tokens")}
    assert grown == {"tokens": document["usage"]["completion_tokens"], "prompt_tokens": document["usage"]["prompt_tokens"]}
    assert after["irm_lite_active"] == 0
