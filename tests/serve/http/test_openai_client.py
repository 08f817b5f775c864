"""The official client, unchanged: what it gets is what the runtime, or `irm-lite generate`, writes alone."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from openai import BadRequestError, NotFoundError

from irm_lite.llamacpp import Model, Runtime
from irm_lite.runs.trained import load_run
from irm_lite.serve.http.pictures import picture
from irm_lite.serve.http.schema import Item
from irm_lite.serve.http.shelf import Shelf
from irm_lite.steering.control_vector import ControlVector
from support.live_server import LiveServer

QUESTION: list[Any] = [{"role": "user", "content": "Which ocean is the biggest?"}]


def alone(model: Model, vector: ControlVector | None = None, layers: tuple[int, ...] | None = None, **how: Any) -> str:
    with Runtime(model, n_ctx=256) as runtime:
        runtime.set_vector(vector, layers=layers)
        return "".join(runtime.generate(QUESTION, **({"max_new_tokens": 16} | how)))


def asked(server: LiveServer, model: str = "tiny", **more: Any) -> str:
    answer = server.client().chat.completions.create(model=model, messages=QUESTION, **({"max_tokens": 16} | more))
    return answer.choices[0].message.content or ""


def test_a_chat_is_what_the_runtime_writes(server: LiveServer, model: Model) -> None:
    answer = server.client().chat.completions.create(model="tiny", messages=QUESTION, max_completion_tokens=16, seed=0)
    expected = alone(model)
    assert answer.choices[0].message.content == expected
    assert answer.choices[0].finish_reason in ("stop", "length")
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == len(model.encode_prompt(QUESTION))
    assert answer.usage.completion_tokens <= 16
    sampled = asked(server, temperature=0.9, seed=7, top_p=0.8)
    with Runtime(model, n_ctx=256) as runtime:
        tokens = runtime.generate_tokens(model.encode_prompt(QUESTION), max_new_tokens=16, temperature=0.9, seed=7, top_p=0.8)
        assert sampled == "".join(model.decode_pieces(tokens)) != expected


def test_a_stream_is_the_same_text_in_pieces(server: LiveServer, model: Model) -> None:
    with server.client().chat.completions.create(
        model="tiny", messages=QUESTION, max_tokens=16, stream=True, stream_options={"include_usage": True}
    ) as stream:
        chunks = list(stream)
    pieces = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(pieces) == alone(model)
    assert sum(map(bool, pieces)) > 3
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] in ("stop", "length")
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens > 3


def test_steering_in_the_request_and_in_the_models_name(server: LiveServer, model: Model, vectors: Path) -> None:
    angry, sad = (ControlVector.load(vectors / f"{name}.gguf") for name in ("angry", "sad"))
    expected = alone(model, angry * 0.8)
    assert expected != alone(model)
    assert asked(server, extra_body={"steering": [{"name": "angry", "scale": 0.8}]}) == expected
    assert asked(server, "tiny:angry@0.8") == expected
    both = alone(model, angry * 0.8 + sad * -0.5)
    assert asked(server, "tiny:angry@0.8+sad@-0.5") == both != expected
    assert asked(server, "tiny:angry@0.8", extra_body={"steering": [{"name": "sad", "scale": -0.5}]}) == both
    one = alone(model, angry.select([2]) + sad)
    assert asked(server, extra_body={"steering": [{"name": "angry", "layers": "2"}, {"name": "sad"}]}) == one


@pytest.mark.parametrize(("scale", "layers"), [(1.0, None), (-0.7, "2")])
def test_an_irm_by_name(server: LiveServer, model: Model, run: Path, scale: float, layers: str | None) -> None:
    steering = {"name": "dynamic", "scale": scale, **({"layers": layers} if layers else {})}
    with Runtime(model, irm=load_run(run).irm, n_ctx=256) as runtime:
        assert runtime.dynamic is not None
        runtime.dynamic.strength, runtime.dynamic.layers = scale, [2] if layers else None
        expected = "".join(runtime.generate(QUESTION, max_new_tokens=16))
    assert asked(server, extra_body={"steering": [steering]}) == expected != alone(model)
    refused = server.client().chat.completions
    with pytest.raises(BadRequestError, match="steers alone"):
        refused.create(model="tiny:dynamic+angry", messages=QUESTION)


@pytest.mark.slow
def test_generate_writes_the_same(server: LiveServer, llama_gguf: Path, vectors: Path) -> None:
    command = [sys.executable, "-m", "irm_lite", "generate", "--gguf", str(llama_gguf), "--json", "-p", QUESTION[0]["content"]]
    options = ["--vector", f"{vectors / 'angry.gguf'}:0.8", "--max-new-tokens", "16", "--temperature", "0.7", "--seed", "3"]
    written = json.loads(subprocess.run([*command, *options, "--context", "256"], capture_output=True, check=True).stdout)
    assert asked(server, "tiny:angry@0.8", temperature=0.7, seed=3) == written["text"]


def test_plain_completions(server: LiveServer, model: Model) -> None:
    ids = model.vocabulary.tokenize_prompt("The ocean")
    with Runtime(model, n_ctx=256) as runtime:
        expected = "".join(model.decode_pieces(runtime.generate_tokens(ids, max_new_tokens=12)))
    client = server.client()
    for prompt in ("The ocean", ["The ocean"], ids):
        assert client.completions.create(model="tiny", prompt=prompt, max_tokens=12).choices[0].text == expected
    pieces = client.completions.create(model="tiny", prompt="The ocean", max_tokens=12, stream=True)
    assert "".join(each.choices[0].text for each in pieces) == expected


def test_a_stop_ends_the_answer_and_is_not_shown(server: LiveServer, model: Model) -> None:
    expected = alone(model)
    stop = expected[5:8]
    whole = server.client().chat.completions.create(model="tiny", messages=QUESTION, max_tokens=16, stop=[stop, "never said"])
    assert whole.choices[0].message.content == expected[: expected.find(stop)]
    assert whole.choices[0].finish_reason == "stop"
    pieces = server.client().chat.completions.create(model="tiny", messages=QUESTION, max_tokens=16, stop=stop, stream=True)
    assert "".join(each.choices[0].delta.content or "" for each in pieces) == expected[: expected.find(stop)]


def test_norms_of_each_token(server: LiveServer, vectors: Path) -> None:
    angry = ControlVector.load(vectors / "angry.gguf")
    client = server.client()
    answer = client.chat.completions.create(model="tiny:angry@-2", messages=QUESTION, max_tokens=6, extra_body={"norms": True})
    tokens = (answer.choices[0].model_extra or {})["tokens"]
    assert (answer.choices[0].message.content or "").startswith(
        "".join(each["text"] for each in tokens)
    )  # but for half a character
    expected = 2 * sum(norm**2 for norm in angry.norms().values()) ** 0.5
    assert [each["norm"] for each in tokens] == pytest.approx([expected] * len(tokens), rel=1e-5)
    pieces = client.chat.completions.create(
        model="tiny:dynamic", messages=QUESTION, max_tokens=6, stream=True, extra_body={"norms": True}
    )
    norms = [token["norm"] for each in pieces for token in (each.choices[0].model_extra or {}).get("tokens", [])]
    assert len(set(norms)) > 1  # it depends on the input


def test_what_was_added_on_the_mean_over_an_answer(server: LiveServer, model: Model, vectors: Path, shelf: Shelf) -> None:
    client = server.client()

    def added(name: str) -> Any:
        answer = client.chat.completions.create(model=name, messages=QUESTION, max_tokens=20, extra_body={"outputs": True})
        return (answer.choices[0].model_extra or {})["outputs"], answer.usage

    angry = ControlVector.load(vectors / "angry.gguf")
    found, _ = added("tiny:angry@-2")
    assert found["layers"] == "1-2"
    assert np.array(found["rows"]) == pytest.approx(-2 * np.stack([angry.directions[n] for n in (1, 2)]), abs=1e-4)

    found, usage = added("tiny:dynamic@0.5")
    irm = shelf.resolve([Item(name="dynamic")]).irm
    assert irm is not None
    outputs: dict[int, list[Any]] = {1: [], 2: []}
    with Runtime(model, irm=irm.irm, n_ctx=256) as alone:
        assert alone.dynamic is not None
        alone.dynamic.strength = 0.5
        alone.dynamic.observers.append(lambda layer, output: outputs[layer].append(output[-1].numpy().copy()))
        list(alone.generate(QUESTION, max_new_tokens=20))
    expected = [0.5 * np.mean(outputs[n][: usage.completion_tokens], axis=0) for n in (1, 2)]
    assert np.array(found["rows"]) == pytest.approx(np.stack(expected), abs=2e-4)
    stream = client.chat.completions.create(
        model="tiny:dynamic@0.5", messages=QUESTION, max_tokens=20, stream=True, extra_body={"outputs": True}
    )
    told = [each for chunk in stream if (each := (chunk.choices[0].model_extra or {}).get("outputs"))]
    assert told[-1] == found
    assert len(told) == 1 + usage.completion_tokens // 16


def test_a_picture_shows_the_strongest_of_each_stretch() -> None:
    assert picture({}) is None
    row = np.zeros(400, dtype=np.float32)
    row[[3, 399, 200]] = [-7, 2, np.nan]
    found = picture({4: row})
    assert found is not None
    assert found["layers"] == "4"
    assert {at: each for at, each in enumerate(found["rows"][0]) if each} == {1: -7.0, 191: 2.0}


def test_models_are_listed_and_found(server: LiveServer) -> None:
    client = server.client()
    listed = [each.id for each in client.models.list()]
    assert {"tiny", "tiny:angry", "tiny:angry@0.5", "tiny:sad", "tiny:dynamic"} <= set(listed)
    for name in (*listed, "tiny:angry@0.8+sad"):
        assert client.models.retrieve(name).id == name
    with pytest.raises(NotFoundError, match="tiny:NAME@SCALE"):
        client.models.retrieve("gpt-4")
