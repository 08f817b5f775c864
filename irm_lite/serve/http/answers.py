"""From the engine's thread to the event loop, and from there to the client: at once or in server-sent events."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.types import Receive, Scope, Send

from irm_lite.serve.http.documents import Form
from irm_lite.serve.http.errors import ApiError
from irm_lite.serve.http.job import Began, Ended, Event, Job, Piece, unheard
from irm_lite.serve.http.log import Log
from irm_lite.serve.http.metrics import Metrics
from irm_lite.serve.http.pool import Pool
from irm_lite.serve.http.sources import Steering


class Answer:
    """One job's events as the event loop sees them. Call `leave` when it is over, however it came to that."""

    def __init__(self, pool: Pool, job: Job, form: Form, log: Log, metrics: Metrics, live: "dict[str, Answer]") -> None:
        """`job.hear` is set here. It is in `live`, by its id, until it is left."""
        self.form = form
        self._pool, self._job, self._log, self._metrics = pool, job, log, metrics
        self._live = live
        live[form.id] = self
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        self._reused, self._end, self._written = 0, "left", 0
        self._texts: list[str] = []
        job.hear = self._hear

    def _hear(self, event: Event) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody is there any more
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)

    async def begin(self) -> None:
        """Ask, and wait until its turn has come and the prompt is read. Raises ApiError."""
        try:
            self._pool.submit(self._job)
        except ApiError as error:
            self._end = error.code
            raise
        event = await self._next()
        assert isinstance(event, Began)
        self._reused = event.reused
        self._metrics.waited.observe(time.monotonic() - self._job.asked)

    async def whole(self) -> dict[str, Any]:
        """The answer at once. Raises ApiError."""
        tokens: list[dict[str, Any]] = []
        while isinstance(event := await self._next(), Piece):
            tokens += event.tokens
        assert isinstance(event, Ended)
        return self.form.whole("".join(self._texts), tokens, event, self._usage())

    async def chunks(self, with_usage: bool) -> AsyncIterator[bytes]:
        """The answer as server-sent events. A failure in mid-answer is one of them."""
        try:
            if self.form.chat:
                yield _sent(self.form.first())
            while isinstance(event := await self._next(), Piece):
                yield _sent(self.form.piece(event))
            assert isinstance(event, Ended)
            yield _sent(self.form.last(event))
            if with_usage:
                yield _sent(self.form.usage_chunk(self._usage()))
        except ApiError as error:
            yield _sent(error.document())
        yield b"data: [DONE]\n\n"

    def turn(self, steering: Steering) -> None:
        """Steer it so from the next token on. Raises ApiError where that is another context's matter."""
        if steering.irm is not self._job.steering.irm:
            raise ApiError(
                400, "steering_conflict", "an answer that an IRM steers cannot go over to vectors, nor back: ask anew", "steering"
            )
        self._job.turned = self.form.steering = steering

    def leave(self) -> None:
        """Stop it where it still goes on, and write down what became of it."""
        self._live.pop(self.form.id, None)
        job, seconds = self._job, time.monotonic() - self._job.asked
        if self._end == "left":
            self._pool.leave(job)
        written = max(self._written, job.written)  # nobody may have heard its end
        job.hear = unheard  # or the two would hold each other, and what steered
        self._metrics.answers.labels(self._end).inc()
        self._metrics.prompt_tokens.inc(len(job.prompt))
        self._metrics.kept_tokens.inc(self._reused)
        self._metrics.tokens.inc(written)
        self._metrics.seconds.observe(seconds)
        about = {"id": self.form.id, "model": self.form.model, "steering": list(job.steering.shown), "end": self._end}
        counts = {"prompt_tokens": len(job.prompt), "kept": self._reused, "tokens": written}
        said = {"text": "".join(self._texts)} if self._log.prompts else {}
        self._log.say("answer", **about, **counts, seconds=round(seconds, 4), **said)

    async def _next(self) -> Began | Piece | Ended:
        event = await self._events.get()
        match event:
            case ApiError():
                self._end = event.code
                raise event
            case Piece():
                self._texts.append(event.text)
            case Ended():
                self._end, self._written = event.reason, event.tokens
        return event

    def _usage(self) -> dict[str, Any]:
        return self.form.usage(self._written, self._reused)


class EventStream(StreamingResponse):
    """Server-sent events of an answer that has begun; leaves it when the client does."""

    def __init__(self, answer: Answer, with_usage: bool) -> None:
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        super().__init__(answer.chunks(with_usage), headers=headers, media_type="text/event-stream")
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._answer.leave()


async def respond(request: Request, answer: Answer, streamed: bool, with_usage: bool) -> JSONResponse | StreamingResponse:
    """The response to a request; where the client goes away before it, the answer is left. Raises ApiError."""
    begun = False
    try:
        await _unless_gone(request, answer.begin())
        if streamed:
            begun = True
            return EventStream(answer, with_usage)
        return JSONResponse(await _unless_gone(request, answer.whole()))
    finally:
        if not begun:
            answer.leave()


async def _unless_gone(request: Request, work: Any) -> Any:
    """What the work gives. Raises ApiError, which nobody hears, where the client goes away first."""
    doing = asyncio.ensure_future(work)
    going = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({doing, going}, return_when=asyncio.FIRST_COMPLETED)
        if not doing.done():
            raise ApiError(499, "client_left", "the client went away")
        return doing.result()
    finally:
        for task in (doing, going):
            task.cancel()
        await asyncio.gather(doing, going, return_exceptions=True)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _sent(document: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(document, separators=(',', ':'))}\n\n".encode()
