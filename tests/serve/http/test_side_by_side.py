"""Many clients at once: each answer is the one that its request gets alone, whoever asks beside it, waits or breaks off."""

import http.client
import json
import math
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from openai import BadRequestError, NotFoundError, OpenAI

from irm_lite.llamacpp import Model, Runtime
from irm_lite.llamacpp.sampling import Sampling
from irm_lite.serve.column import Manner
from irm_lite.serve.http.errors import ApiError
from irm_lite.serve.http.job import Ended, Event, Job, Piece
from irm_lite.serve.http.log import Log
from irm_lite.serve.http.pool import Pool
from irm_lite.serve.http.schema import Item
from irm_lite.serve.http.settings import Settings
from irm_lite.serve.http.shelf import Shelf
from irm_lite.serve.http.sources import Steering
from irm_lite.serve.http.turns import Turns
from irm_lite.serve.http.writing import Writing
from support.live_server import PATIENCE, LiveServer, live_server

WORDS = ("ocean", "Pluto", "the oldest city", "seven", "a whale", "salt", "bread", "Why?", "the sea and the sky")
STEERINGS: tuple[list[dict[str, Any]], ...] = (
    [],
    [{"name": "angry", "scale": 0.8}],
    [{"name": "angry", "scale": 0.8, "layers": "2"}],
    [{"name": "sad", "scale": -1.5}],
    [{"name": "sad", "scale": 0.3}, {"name": "angry", "scale": 1.1}],
    [{"name": "dynamic", "scale": 0.7}],
    [{"name": "tone", "scale": 0.8}],
    [{"name": "tone", "scale": -0.5}, {"name": "sad", "scale": 0.3}],
)


def requests(count: int, seed: int) -> list[dict[str, Any]]:
    chance = random.Random(seed)
    system = [{"role": "system", "content": "Speak of the sea. " * 4}]  # what many have in common
    return [
        {
            "model": "tiny",
            "messages": [*(system if chance.random() < 0.5 else []), {"role": "user", "content": chance.choice(WORDS)}],
            "max_tokens": chance.randint(1, 14),
            "steering": chance.choice(STEERINGS),
            "stream": chance.random() < 0.5,
        }
        for _ in range(count)
    ]


def alone(model: Model, shelf: Shelf, request: dict[str, Any]) -> str:
    """What a fresh context writes, without the server's code but for the names."""
    steering = shelf.resolve([Item(**each) for each in request["steering"]])
    with Runtime(model, n_ctx=256, irm=steering.irm.irm if steering.irm else None) as runtime:
        if steering.vector is not None:
            runtime.set_vector(steering.vector)
        runtime.set_adapters(steering.adapters)
        if runtime.dynamic is not None:
            runtime.dynamic.strength = steering.strength
        return "".join(runtime.generate(request["messages"], max_new_tokens=request["max_tokens"]))


def ask(client: OpenAI, request: dict[str, Any]) -> str:
    body = {"steering": request["steering"]}
    about = {key: request[key] for key in ("model", "messages", "max_tokens")}
    if not request["stream"]:
        return client.chat.completions.create(**about, extra_body=body).choices[0].message.content or ""
    with client.chat.completions.create(**about, extra_body=body, stream=True) as stream:
        return "".join(chunk.choices[0].delta.content or "" for chunk in stream)


@pytest.mark.slow
def test_200_requests_of_8_clients_are_each_answered_as_alone(server: LiveServer, model: Model, shelf: Shelf) -> None:
    asked = requests(200, seed=1)
    clients = [server.client() for _ in range(8)]
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda each: ask(clients[each[0] % 8], each[1]), enumerate(asked)))
    known: dict[str, str] = {}
    for request, text in zip(asked, found, strict=True):
        key = json.dumps([request["messages"], request["steering"], request["max_tokens"]])
        known.setdefault(key, alone(model, shelf, request))
        assert text == known[key]
    assert len(set(known.values())) > 20
    assert (server.pool.active, server.pool.waiting) == (0, 0)


@pytest.mark.slow
def test_the_same_beside_20_clients_that_break_off(server: LiveServer, model: Model, shelf: Shelf) -> None:
    asked = requests(40, seed=2)
    client = server.client()
    with ThreadPoolExecutor(12) as threads:
        broken = [threads.submit(break_off, server, number) for number in range(20)]
        found = list(threads.map(lambda each: ask(client, each), asked))
        for each in broken:
            each.result()
    assert found == [alone(model, shelf, each) for each in asked]


def test_an_answer_that_nobody_reads_is_given_up(model: Model, shelf: Shelf) -> None:
    left = [threading.Event() for _ in range(3)]

    class Listening(Log):
        def say(self, event: str, **about: Any) -> None:
            if event == "answer" and about["end"] in ("left", "client_left"):
                next(each for each in left if not each.is_set()).set()

    settings = Settings("tiny", port=0, contexts=1, context=512)
    with live_server(model, shelf, settings, Listening()) as server:
        for number, each in zip((2, 1, 3), left, strict=True):  # streamed, its first piece read or not; not streamed
            break_off(server, number)
            assert each.wait(PATIENCE)
        assert ask(server.client(), requests(1, seed=3)[0]) is not None  # the one context is free


def break_off(server: LiveServer, number: int) -> None:
    """Ask for much; go away at once, after the head of the answer, or after its first piece."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
    body = {"messages": [{"role": "user", "content": "ocean"}], "max_tokens": 400, "stream": number % 4 != 3}
    connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
    if number % 4 in (1, 2):
        response = connection.getresponse()
        if number % 4 == 2:
            response.readline()
        response.close()
    connection.close()


class Heard:
    """What a job's caller hears."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.over = threading.Event()
        self.first = threading.Event()

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        self.first.set()
        if isinstance(event, Ended | ApiError):
            self.over.set()

    @property
    def text(self) -> str:
        assert self.over.wait(PATIENCE)
        return "".join(each.text for each in self.events if isinstance(each, Piece))


def job(model: Model, heard: Heard, words: str = "ocean", tokens: int = 8, **more: Any) -> Job:
    prompt = model.encode_prompt([{"role": "user", "content": words}])
    return Job(prompt, Manner(Sampling(), tokens, watched=False), more.pop("steering", Steering()), heard, **more)


def test_a_job_that_nobody_waits_for_frees_its_context(model: Model) -> None:
    with Pool(model, contexts=1, n_ctx=512) as pool:
        long, short = Heard(), Heard()
        first = job(model, long, tokens=10**6)
        pool.submit(first)
        assert long.first.wait(PATIENCE)
        pool.submit(job(model, short))
        pool.leave(first)
        assert short.text
        assert not long.over.is_set()  # it did not run to its end
        assert 0 < first.written < 10**6


def test_an_irm_that_is_unloaded_frees_its_contexts(model: Model, shelf: Shelf) -> None:
    steering = shelf.resolve([Item(name="dynamic")])
    with Pool(model, contexts=2, n_ctx=512) as pool:
        long, short = Heard(), Heard()
        first = job(model, long, tokens=10**6, steering=steering)
        pool.submit(first)
        assert long.first.wait(PATIENCE)
        pool.submit(job(model, short, steering=steering))
        assert short.text
        pool.keep_irms(shelf.irms)
        assert [len(slot._irms) for slot in pool._slots] == [1, 1]
        shelf.unload("dynamic")
        pool.keep_irms(shelf.irms)
        assert sum(len(slot._irms) for slot in pool._slots) == 1  # it still writes
        first.deadline = 0.0
        assert long.over.wait(PATIENCE)
        pool.between(lambda: None)
        assert [len(slot._irms) for slot in pool._slots] == [0, 0]


def test_time_and_place_are_limited(model: Model) -> None:
    with Pool(model, contexts=1, n_ctx=512, most_waiting=1) as pool:
        running, waiting, late = Heard(), Heard(), Heard()
        first = job(model, running, tokens=10**6)
        pool.submit(first)
        assert running.first.wait(PATIENCE)
        pool.submit(job(model, late, deadline=0.0))
        assert late.over.wait(PATIENCE)
        assert [getattr(each, "code", None) for each in late.events] == ["queue_timeout"]
        pool.submit(job(model, waiting))
        with pytest.raises(ApiError, match="wait already") as refused:
            pool.submit(job(model, Heard()))
        assert refused.value.status == 429
        first.deadline = 0.0
        assert running.over.wait(PATIENCE)
        assert isinstance(running.events[-1], Ended)
        assert waiting.text


def test_no_first_token_in_time_is_an_error(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    class Late(Writing):
        """Its time is over when its turn has come."""

        def step(self) -> None:
            self.job.deadline = 0.0
            super().step()

    monkeypatch.setattr("irm_lite.serve.http.pool.Writing", Late)
    with Pool(model, contexts=1, n_ctx=256) as pool:
        heard = Heard()
        pool.submit(job(model, heard))
        assert heard.over.wait(PATIENCE)
        assert [getattr(each, "code", None) for each in heard.events] == ["timeout"]


def test_one_answers_failure_is_not_the_others(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing(Writing):
        def step(self) -> None:
            if self.job.group == "bad" and self._began:
                raise ZeroDivisionError
            super().step()

    monkeypatch.setattr("irm_lite.serve.http.pool.Writing", Failing)
    with Pool(model, contexts=2, n_ctx=256) as pool:
        bad, good, again = Heard(), Heard(), Heard()
        pool.submit(job(model, bad, group="bad"))
        pool.submit(job(model, good))
        assert good.text
        assert bad.over.wait(PATIENCE)
        assert isinstance(bad.events[-1], ApiError)
        assert bad.events[-1].status == 500
        pool.submit(job(model, again))
        assert again.text == good.text


def test_a_pool_that_fails_leaves_nobody_waiting(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_pool: Pool) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Pool, "_next_jobs", fail)
    monkeypatch.setattr(threading, "excepthook", lambda about: None)  # which pytest would complain of
    with Pool(model, contexts=1, n_ctx=256) as pool:
        heard = Heard()
        pool.submit(job(model, heard))
        assert heard.over.wait(PATIENCE)
        with pytest.raises(ApiError, match="stopped"):
            pool.submit(job(model, Heard()))


def test_a_pool_that_closes_refuses_what_waits(model: Model) -> None:
    heard = [Heard() for _ in range(3)]
    with Pool(model, contexts=1, n_ctx=512) as pool:
        for each in heard:
            pool.submit(job(model, each, tokens=10**6))
        assert heard[0].first.wait(PATIENCE)
    for each in heard:
        assert each.over.is_set()
        assert isinstance(each.events[-1], ApiError)
        assert each.events[-1].code == "shutting_down"


def test_turns_go_round_the_groups() -> None:
    turns = Turns()
    jobs = [Job([1], Manner(Sampling(), 1), Steering(), print, group=group) for group in "aaabbc"]
    for each in jobs:
        turns.add(each)
    a1, a2, a3, b1, b2, c1 = jobs
    a2.gone = True
    assert list(turns.take_out(0.0)) == [a2]
    assert [turns.next() for _ in range(len(turns))] == [a1, b1, c1, a3, b2]
    with pytest.raises(KeyError):
        turns.next()


def test_a_long_prompt_is_reused_under_the_same_steering_alone(model: Model, shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("irm_lite.serve.http.pool.Runtime", lambda model, **more: Runtime(model, n_batch=32, **more))
    angry, sad, tone, half = (
        shelf.resolve([Item(name=name, scale=scale)]) for name, scale in (("angry", 1), ("sad", 1), ("tone", 1), ("tone", 0.5))
    )
    again = shelf.resolve([Item(name="angry")])
    assert again.vector is angry.vector  # the same sum each time
    words = "the sea and the sky and " * 12
    with Pool(model, contexts=2, n_ctx=512) as pool:

        def reused(steering: Steering, more: str = "") -> int:
            heard = Heard()
            pool.submit(job(model, heard, words + more, steering=steering))
            with Runtime(model, n_ctx=512, n_batch=32) as fresh:
                fresh.set_vector(steering.vector)
                fresh.set_adapters(steering.adapters)
                expected = fresh.generate([{"role": "user", "content": words + more}], max_new_tokens=8)
                assert heard.text == "".join(expected)
            return int(getattr(heard.events[0], "reused"))  # noqa: B009

        assert reused(angry) == 0
        assert reused(sad) == 0
        assert reused(again) >= 64
        assert reused(angry, "whales") >= 64
        assert reused(Steering()) == 0
        assert reused(angry.__class__()) >= 64
        assert reused(tone) == 0
        assert reused(half) == 0
        assert reused(shelf.resolve([Item(name="tone")])) >= 64
        assert reused(angry) == 0  # where half was, the one longest unused
        assert reused(tone) >= 64


def test_another_steering_in_mid_answer_is_a_fresh_start_from_that_text(model: Model, shelf: Shelf) -> None:
    angry, other = shelf.resolve([Item(name="angry")]), shelf.resolve([Item(name="sad", scale=-2.0), Item(name="angry", scale=0.5)])
    tone, both = shelf.resolve([Item(name="tone", scale=0.8)]), shelf.resolve([Item(name="sad"), Item(name="tone", scale=-0.4)])
    nothing = Steering()
    for before, after in ((angry, other), (angry, nothing), (nothing, angry), (tone, both), (both, angry), (tone, nothing)):
        heard = Turning(5)
        asked = job(model, heard, tokens=12, steering=before)
        asked = replace(asked, manner=replace(asked.manner, watched=True))
        heard.job, heard.steering = asked, after
        with Pool(model, contexts=1, n_ctx=256) as pool:
            pool.submit(asked)
            assert heard.over.wait(PATIENCE)
        tokens = [each for event in heard.events if isinstance(event, Piece) for each in event.tokens]
        with Runtime(model, n_ctx=256) as runtime:
            steer(runtime, before)
            first = list(runtime.generate_tokens(asked.prompt, max_new_tokens=5))
            steer(runtime, after)
            rest = list(runtime.generate_tokens([*asked.prompt, *first], max_new_tokens=7))
        assert heard.text.rstrip("\ufffd") == "".join(model.decode_pieces([*first, *rest])).rstrip("\ufffd")
        norms = [each["norm"] or 0.0 for each in tokens]  # None where an adapter is at work
        assert norms == pytest.approx([*[norm(before)] * 5, *[norm(after)] * (len(norms) - 5)], rel=1e-5)


def test_the_same_over_http(model: Model, shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    turned = threading.Event()

    class Gated(Writing):
        """Waits at the fifth token until the other steering is asked for."""

        def step(self) -> None:
            assert len(self._column.written) != 5 or turned.wait(PATIENCE)
            super().step()

    monkeypatch.setattr("irm_lite.serve.http.pool.Writing", Gated)
    words: list[Any] = [{"role": "user", "content": "ocean"}]
    angry = shelf.resolve([Item(name="angry")])
    with live_server(model, shelf, Settings("tiny", port=0, contexts=1, context=256)) as server:
        client = server.client()
        stream = client.chat.completions.create(model="tiny", messages=words, max_tokens=12, stream=True)
        chunks = [next(stream)]
        path = f"/answers/{chunks[0].id}/steering"
        with pytest.raises(BadRequestError, match="ask anew"):
            client.post(path, body={"steering": [{"name": "dynamic"}]}, cast_to=object)
        found = client.post(path, body={"steering": [{"name": "angry"}]}, cast_to=object)
        assert found == {"id": chunks[0].id, "object": "steering", "steering": [{"name": "angry", "scale": 1.0, "layers": "1-2"}]}
        turned.set()
        chunks += stream
        with pytest.raises(NotFoundError, match="no answer"):  # it is over
            client.post(path, body={"steering": []}, cast_to=object)
    with Runtime(model, n_ctx=256) as runtime:
        prompt = model.encode_prompt(words)
        first = list(runtime.generate_tokens(prompt, max_new_tokens=5))
        runtime.set_vector(angry.vector)
        rest = list(runtime.generate_tokens([*prompt, *first], max_new_tokens=7))
    assert "".join(each.choices[0].delta.content or "" for each in chunks) == "".join(model.decode_pieces([*first, *rest]))


def steer(runtime: Runtime, steering: Steering) -> None:
    runtime.set_vector(steering.vector)
    runtime.set_adapters(steering.adapters)


def norm(steering: Steering) -> float:
    if steering.vector is None or steering.adapters:
        return 0.0
    return math.hypot(*steering.vector.norms().values())


class Turning(Heard):
    """Asks for another steering when so many tokens are written."""

    job: Job
    steering: Steering

    def __init__(self, when: int) -> None:
        super().__init__()
        self._left = when

    def __call__(self, event: Event) -> None:
        super().__call__(event)
        if isinstance(event, Piece):
            self._left -= len(event.tokens)
            if self._left == 0:
                self.job.turned = self.steering


def test_a_vector_replaced_under_its_name_is_another(shelf: Shelf, vectors: Path) -> None:
    before = shelf.resolve([Item(name="angry")]).vector
    shelf.add_vector("angry", str(vectors / "sad.gguf"))
    after = shelf.resolve([Item(name="angry")]).vector
    assert before is not None
    assert after is not None
    assert not (before.directions[1] == after.directions[1]).any()
