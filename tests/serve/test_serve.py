"""`irm-lite serve`: every column against its runtime alone, strength changed in mid-answer, and whatever else comes in."""

import base64
import json
import os
import queue
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import LlamaForCausalLM

from irm_lite.base.fingerprint import Fingerprint, fingerprint_gguf
from irm_lite.config import TrainConfig
from irm_lite.llamacpp import Model, Runtime
from irm_lite.llamacpp.adapters import at_work
from irm_lite.runs.directory import RunDirectory
from irm_lite.serve.request import LONGEST_LINE
from irm_lite.serve.server import Event, Inbox, Server
from irm_lite.steering.adapter import Adapter, Factors
from irm_lite.steering.control_vector import ControlVector
from irm_lite.steering.injection import inject
from irm_lite.steering.irm import IRM, build_irm
from irm_lite.steering.irm_files import load_irm, save_irm

QUESTION = [{"role": "user", "content": "Which ocean is the biggest?"}]
LAYERS = (1, 2)


def random_irm() -> IRM:
    torch.manual_seed(0)
    irm = build_irm("lite", 64, LAYERS, "block", width=32, rank=4).requires_grad_(False)
    for name, parameter in irm.named_parameters():
        if name in ("up", "bias"):
            parameter.normal_(0, 0.5)
    return irm


@pytest.fixture(scope="module")
def run(llama_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = RunDirectory(tmp_path_factory.mktemp("runs") / "odd")
    directory.create(TrainConfig(), fingerprint_gguf(llama_gguf), {})
    save_irm(random_irm(), directory.path)
    return directory.path


@pytest.fixture(scope="module")
def vector_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("vectors") / "v.gguf"
    generator = np.random.default_rng(3)
    ControlVector({layer: generator.normal(0, 0.5, 64).astype(np.float32) for layer in LAYERS}, "llama").save(path)
    return path


class Client:
    """A server with all columns, in this process; `events` are those since the last `ask`."""

    def __init__(self, model: Model) -> None:
        self.events: list[Event] = []
        self.watch: Callable[[Event], None] = lambda event: None
        self.inbox: Inbox = queue.Queue()
        self.server = Server(model, self._emit, context=256)

    def _emit(self, event: Event) -> None:
        self.events.append(json.loads(json.dumps(event, allow_nan=False)))
        self.watch(event)

    def send(self, line: Any) -> None:
        self.inbox.put(line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n")

    def ask(self, *lines: Any, watch: Callable[[Event], None] | None = None) -> list[Event]:
        self.events, self.watch = [], watch or (lambda event: None)
        for line in lines:
            self.send(line)
        self.inbox.put(None)
        self.server.run(self.inbox)
        self.inbox = queue.Queue()
        return self.events


@pytest.fixture(scope="module")
def model(llama_gguf: Path) -> Iterator[Model]:
    with Model(llama_gguf) as model:
        yield model


@pytest.fixture
def client(model: Model, run: Path, vector_file: Path) -> Iterator[Client]:
    client = Client(model)
    with client.server as server:
        server.load_vector((str(vector_file),))
        server.load_irm(str(run))
        yield client


def chat(**values: Any) -> Event:
    return {"id": 1, "do": "chat", "messages": QUESTION, "columns": ["base", "vector", "irm"], "max_new_tokens": 12} | values


def texts(events: list[Event]) -> dict[str, str]:
    return {each["column"]: each["text"] for each in events if each["kind"] == "end"}


def kinds(events: list[Event], kind: str) -> list[Event]:
    return [each for each in events if each["kind"] == kind]


def steered(model: Model, column: str, run: Path, vector: Path, strength: float, layers: tuple[int, ...]) -> Runtime:
    runtime = Runtime(model, n_ctx=256, irm=load_irm(run) if column == "irm" else None)
    if column == "vector":
        runtime.set_vector(ControlVector.load(vector), strength, layers)
    if runtime.dynamic is not None:
        runtime.dynamic.strength, runtime.dynamic.layers = strength, layers
    return runtime


@pytest.mark.parametrize(("temperature", "strength", "layers"), [(0.0, 1.0, (1, 2)), (0.9, -0.7, (2,))])
def test_each_column_writes_what_its_runtime_writes_alone(
    client: Client, model: Model, run: Path, vector_file: Path, temperature: float, strength: float, layers: tuple[int, ...]
) -> None:
    spec = "all" if len(layers) == 2 else "2"
    events = client.ask(chat(temperature=temperature, seed=5, strength=strength, layers=spec))
    found = texts(events)
    assert list(found) == ["base", "vector", "irm"]
    assert len(set(found.values())) == 3  # the steering does something
    for column, text in found.items():
        with steered(model, column, run, vector_file, strength, layers) as alone:
            assert "".join(alone.generate(QUESTION, max_new_tokens=12, temperature=temperature, seed=5)) == text
        pieces = [each["text"] for each in kinds(events, "token") if each["column"] == column]
        assert text.startswith("".join(pieces))
    assert [each["column"] for each in kinds(events, "token")[:6]] == ["base", "vector", "irm"] * 2  # they stream together


def test_another_strength_in_mid_answer_is_a_fresh_start_from_that_text(
    client: Client, model: Model, run: Path, vector_file: Path
) -> None:
    written: dict[str, list[int]] = {}

    def at_five(event: Event) -> None:
        if event["kind"] == "token" and event["column"] == "irm" and event["token"] == 4:
            written.update({name: list(column.written) for name, column in client.server._columns.items()})
            client.send({"id": 2, "do": "set", "strength": -0.8})
            client.send({"id": 3, "do": "set", "strength": 2.0, "layers": "1"})

    client.inbox = queue.Queue()
    client.events, client.watch = [], at_five
    client.send(chat(temperature=0.7, seed=9))
    finished = run_until_ends(client)
    answers = texts(finished)
    acknowledged = kinds(finished, "set")[-1]
    assert acknowledged["columns"]["vector"] == {"token": 5, "strength": 2.0, "layers": "1"}
    assert acknowledged["columns"]["base"] == {"token": 5}
    for column in ("base", "vector", "irm"):
        begun = written[column]
        assert len(begun) == 5
        with steered(model, column, run, vector_file, 2.0, (1,)) as alone:
            prompt = alone.encode_prompt(QUESTION)
            if column == "base":  # nothing steers it, so nothing began anew
                whole = list(alone.generate_tokens(prompt, max_new_tokens=12, temperature=0.7, seed=9))
            else:
                whole = begun + list(alone.generate_tokens(prompt + begun, max_new_tokens=7, temperature=0.7, seed=9))
        assert answers[column] == "".join(model.decode_pieces(whole))


def test_an_adapter_is_a_column_whose_strength_may_change(client: Client, model: Model, vector_file: Path, tmp_path: Path) -> None:
    generator = np.random.default_rng(4)
    factors = {
        f"blk.{n}.ffn_down": Factors(*(generator.normal(0, 0.5, shape).astype(np.float32) for shape in ((2, 128), (64, 2))))
        for n in range(3)
    }
    path = tmp_path / "a.gguf"
    Adapter(factors, "llama", 2.0).save(path)
    loaded = client.ask({"id": 4, "do": "load", "adapter": f"{path}:0.5"})
    assert kinds(loaded, "ready")[-1]["columns"]["adapter"] == {"sources": [f"{path}:0.5"], "warning": None, "note": None}
    said = {}
    for strength in (1.0, -0.8):
        events = client.ask(chat(columns=["adapter", "vector"], strength=strength, layers="all"))
        assert kinds(events, "start")[0] == {
            **{"kind": "start", "id": 1, "column": "adapter", "strength": strength},
            "prompt_tokens": kinds(events, "start")[1]["prompt_tokens"],
        }
        with Runtime(model, n_ctx=256) as alone, at_work(alone, [f"{path}:{0.5 * strength}"]):
            said[strength] = "".join(alone.generate(QUESTION, max_new_tokens=12))
        assert texts(events)["adapter"] == said[strength]
    assert said[1.0] != said[-0.8]
    refused = client.ask({"do": "load", "adapter": str(vector_file)})
    assert "not a LoRA adapter" in kinds(refused, "error")[0]["text"]
    assert "adapter" not in kinds(client.ask({"do": "load", "adapter": None}), "ready")[-1]["columns"]


def run_until_ends(client: Client) -> list[Event]:
    """Let it write to the end, with what is sent meanwhile still heard: no end of input before."""
    outer = client.watch

    def watch(event: Event) -> None:
        outer(event)
        if len(texts(client.events)) == 3:
            client.send({"do": "quit"})

    client.watch = watch
    client.server.run(client.inbox)
    return client.events


def test_norms_and_outputs_are_what_transformers_adds(
    client: Client, model: Model, run: Path, vector_file: Path, llama_folder: Path
) -> None:
    events = client.ask(chat(strength=0.5), {"id": 7, "do": "outputs", "column": "irm", "token": 0})
    assert "not kept" in kinds(events, "error")[0]["text"]  # it was asked before the first token
    events = [*kinds(events, "token"), *client.ask({"id": 8, "do": "outputs", "column": "irm", "token": 3})]
    norms = {name: [each["norm"] for each in kinds(events, "token") if each["column"] == name] for name in ("vector", "irm")}
    whole = float(np.linalg.norm(np.stack(list(ControlVector.load(vector_file).directions.values())).astype(np.float64)))
    np.testing.assert_allclose(norms["vector"], 0.5 * whole, rtol=1e-6)
    assert all(each["norm"] is None for each in kinds(events, "token") if each["column"] == "base")

    prompt = model.encode_prompt(QUESTION)
    answer = client.server._columns["irm"].written
    seen: dict[int, torch.Tensor] = {}
    twin = LlamaForCausalLM.from_pretrained(llama_folder, dtype=torch.float32).eval()
    with torch.no_grad(), inject(twin, load_irm(run), strength=0.5) as injection:
        injection.observers.append(lambda layer, output: seen.update({layer: output[0]}))
        twin(torch.tensor([prompt + answer]))
    expected = torch.stack([seen[layer] for layer in LAYERS], dim=1)[len(prompt) - 1 : -1]  # (A, L, H): where each was predicted
    np.testing.assert_allclose(norms["irm"], 0.5 * expected.flatten(1).norm(dim=1).numpy(), rtol=2e-3)

    (outputs,) = kinds(events, "outputs")
    assert (outputs["id"], outputs["chat"], outputs["strength"], outputs["layers"]) == (8, 1, 0.5, [1, 2])
    got = np.frombuffer(base64.b64decode(outputs["float16"]), dtype="<f2").reshape(outputs["shape"])
    np.testing.assert_allclose(got, expected[3].numpy(), atol=5e-3)


def test_stop_ends_all_and_the_next_conversation_follows(client: Client) -> None:
    def stop(event: Event) -> None:
        if event["kind"] == "token" and event["id"] == 1 and event["token"] == 2 and event["column"] == "irm":
            client.send({"do": "stop"})
            client.send(chat(id=3, columns=["base"], max_new_tokens=2))
            client.inbox.put(None)

    client.events, client.watch = [], stop
    client.send(chat(max_new_tokens=100, temperature=1.0))
    client.send(chat(id="two"))
    client.server.run(client.inbox)
    ends = [(each["id"], each["column"], each["reason"], each["tokens"]) for each in kinds(client.events, "end")]
    assert ends[:3] == [(1, name, "stopped", 3) for name in ("base", "vector", "irm")]
    assert ends[3:6] == [("two", name, "stopped", 0) for name in ("base", "vector", "irm")]
    assert ends[6] == (3, "base", "length", 2)


def test_conversations_differ_by_column_and_fill_the_context(client: Client) -> None:
    long = [{"role": "user", "content": "why " * 300}]
    nearly = [{"role": "user", "content": "why " * 70}]
    events = client.ask(
        {"id": 1, "do": "chat", "messages": {"base": long, "vector": nearly, "irm": QUESTION}, "max_new_tokens": 200}
    )
    (error,) = kinds(events, "error")
    assert error["column"] == "base"
    assert "fills the context" in error["text"]
    ends = {each["column"]: each for each in kinds(events, "end")}
    starts = {each["column"]: each for each in kinds(events, "start")}
    for name in ("vector", "irm"):
        full = starts[name]["prompt_tokens"] + ends[name]["tokens"] == 256
        assert ends[name]["reason"] in ({"context"} if full else {"turn", "length"})


def test_steering_is_loaded_and_removed(client: Client, run: Path, tmp_path: Path) -> None:
    RunDirectory(tmp_path / "stranger").create(TrainConfig(), Fingerprint("llama", 3, 64, "0" * 64), {})
    save_irm(random_irm(), tmp_path / "stranger")
    events = client.ask(
        {"id": 1, "do": "load", "irm": str(tmp_path / "none")},
        {"id": 2, "do": "load", "vector": None},
        chat(id=3, columns=["vector"]),
    )
    assert [each["column"] for each in kinds(events, "error")] == ["irm", "vector"]
    assert "no run.toml" in kinds(events, "error")[0]["text"]
    (ready,) = kinds(events, "ready")
    assert set(ready["columns"]) == {"base", "irm"}
    assert ready["columns"]["irm"]["sources"] == [str(run)]
    (ready,) = kinds(client.ask({"do": "load", "irm": str(tmp_path / "stranger")}), "ready")
    assert "other weights" in ready["columns"]["irm"]["warning"]
    events = client.ask(chat(columns=["irm"], layers="0"))
    assert "name none of the irm's" in kinds(events, "error")[0]["text"]


BAD = [
    b"\xff\xfe\n",
    b"[" * 100_000 + b"\n",
    b"x" * LONGEST_LINE,
    b"7\n",
    {"do": "fly"},
    {"do": ["chat"]},
    {"id": [1], "do": "stop"},
    {"id": True, "do": "stop"},
    {"do": "stop", "now": 1},
    {"do": "load"},
    {"do": "load", "irm": "a", "vector": "b"},
    {"do": "load", "irm": "a\0b"},
    {"do": "load", "vector": ["x" * 5000]},
    {"do": "load", "vector": [7]},
    {"do": "set", "strength": float("nan")},
    {"do": "set", "strength": 1e9},
    {"do": "set", "strength": True},
    {"do": "outputs", "column": "irm", "token": -1},
    {"do": "outputs", "column": "side", "token": 1},
    {"do": "outputs", "column": "base", "token": 1},
    chat(messages=[]),
    chat(messages=[{"role": "user"}]),
    chat(messages=[{"role": "wizard", "content": "?"}]),
    chat(messages=[{"role": ["user"], "content": "?"}]),
    chat(messages=[{"role": "user", "content": "\ud800"}]),
    chat(columns=[]),
    chat(columns=["base", 3]),
    chat(columns="base"),
    chat(columns=["base"], messages={"base": QUESTION}),
    chat(temperature=-1),
    chat(seed=-1),
    chat(seed=1.5),
    chat(max_new_tokens=0),
    chat(strength=int("9" * 400)),
    chat(layers=3),
    chat(layers="9-1"),
]


@pytest.mark.parametrize("line", BAD, ids=range(len(BAD)))
def test_rubbish_in_is_an_error_out(client: Client, line: Any) -> None:
    events = client.ask(line)
    assert kinds(events, "error")
    assert not kinds(events, "token")
    assert all("\n" not in each["text"] for each in kinds(events, "error"))


def test_messages_are_read_as_over_http(client: Client) -> None:
    parts = [{"type": "text", "text": "Why?"}, {"type": "input_text", "text": "Well?"}]
    as_clients_write = [{"role": "developer", "content": "Be short."}, {"role": "User", "content": parts, "name": "me"}]
    plain = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Why?\nWell?"}]
    found, expected = (client.ask(chat(columns=["base"], messages=each)) for each in (as_clients_write, plain))
    assert kinds(found, "start") == kinds(expected, "start") != []
    assert texts(found) == texts(expected)


keys = st.sampled_from(["id", "do", "messages", "columns", "strength", "layers", "seed", "temperature", "max_new_tokens", "irm"])
leaves = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(["chat", "set", "base", "1"])
)
values = st.recursive(leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3), max_leaves=6)
objects = st.fixed_dictionaries(
    {"do": st.sampled_from(["chat", "set", "stop", "load", "outputs"])}, optional={"id": values}
).flatmap(lambda known: st.dictionaries(keys, values, max_size=4).map(lambda more: {**more, **known}))


@pytest.mark.slow
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines=st.lists(st.binary(max_size=40) | objects.map(lambda each: json.dumps(each).encode()), max_size=5))
def test_whatever_comes_it_answers_and_goes_on(client: Client, lines: list[bytes]) -> None:
    client.ask(*lines)
    again = client.ask(chat(columns=["base"], max_new_tokens=1))
    assert kinds(again, "end")[-1]["tokens"] <= 1


def serve(*arguments: str, sent: bytes) -> tuple[int, list[Event], str]:
    done = subprocess.run(
        [sys.executable, "-m", "irm_lite", "serve", *arguments],
        input=sent,
        capture_output=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        timeout=300,
        check=False,
    )
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr.decode()


@pytest.mark.slow
def test_the_verb_speaks_json_lines_until_its_input_ends(llama_gguf: Path, vector_file: Path, tmp_path: Path) -> None:
    asked = json.dumps(chat(columns=["base", "vector"], max_new_tokens=3)).encode()
    sent = b"rubbish\n" + b"y" * (LONGEST_LINE + 9) + b"\n" + asked  # no newline at the end
    code, events, errors = serve("--gguf", str(llama_gguf), "--vector", f"{vector_file}:0.5", sent=sent)
    assert (code, errors) == (0, "")
    assert [each["kind"] for each in events[:4]] == ["loading", "ready", "error", "error"]
    assert events[1]["protocol"] == 1
    assert set(texts(events)) == {"base", "vector"}
    code, events, errors = serve("--gguf", str(tmp_path / "none.gguf"), sent=b"")
    assert code == 2
    assert events[-1]["kind"] == "error"
    assert "Traceback" not in errors
    assert errors.startswith("irm-lite: ")
