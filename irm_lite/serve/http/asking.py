"""From what a client sent to a job for the pool: the prompt's tokens, what steers, how it is to be written."""

import time
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from irm_lite.core.errors import InputError, IrmLiteError
from irm_lite.core.files.paths import is_utf8
from irm_lite.llamacpp import Model
from irm_lite.llamacpp.sampling import TOP_P, Sampling
from irm_lite.serve.column import Manner
from irm_lite.serve.http.answers import Answer
from irm_lite.serve.http.documents import Form
from irm_lite.serve.http.errors import ApiError, of_prompt
from irm_lite.serve.http.job import Job, unheard
from irm_lite.serve.http.log import Log
from irm_lite.serve.http.metrics import Metrics
from irm_lite.serve.http.names import parse_model
from irm_lite.serve.http.pool import Pool
from irm_lite.serve.http.schema import Asked, ChatAsked, CompletionAsked, Item, refuse_unsupported
from irm_lite.serve.http.settings import Settings
from irm_lite.serve.http.shelf import Shelf
from irm_lite.serve.http.sources import Steering
from irm_lite.serve.request import read_conversation


class Asking:
    """Raises ApiError where something in a request cannot be used."""

    def __init__(self, model: Model, shelf: Shelf, pool: Pool, settings: Settings, log: Log, metrics: Metrics) -> None:
        self._model, self._shelf, self._pool = model, shelf, pool
        self._settings, self._log, self._metrics = settings, log, metrics
        self._live: dict[str, Answer] = {}
        self._fingerprint = f"fp_{model.fingerprint.weights[:12]}"

    @staticmethod
    def with_usage(asked: Asked) -> bool:
        """Whether a stream is to end with the tokens counted."""
        return bool(asked.stream_options and asked.stream_options.include_usage)

    async def chat(self, asked: ChatAsked, request: Request) -> Answer:
        """The answer to a conversation."""
        steering = self._checked(asked)
        prompt = await run_in_threadpool(self._chat_prompt, asked)
        return self._answer(asked, request, prompt, steering, asked.max_completion_tokens or asked.max_tokens)

    async def completion(self, asked: CompletionAsked, request: Request) -> Answer:
        """What follows a text."""
        steering = self._checked(asked)
        prompt = await run_in_threadpool(self._text_prompt, asked)
        return self._answer(asked, request, prompt, steering, asked.max_tokens)

    def turn(self, identity: str, items: Sequence[Item]) -> dict[str, Any]:
        """Another steering for an answer that is being written."""
        answer = self._live.get(identity.rpartition("-")[2])
        if answer is None:
            raise ApiError(404, "no_such_answer", f"no answer {identity[:80]!r} is being written", "id")
        steering = self._shelf.resolve(items)
        answer.turn(steering)
        return {"id": identity, "object": "steering", "steering": list(steering.shown)}

    def _checked(self, asked: Asked) -> Steering:
        """What steers: what the model's name says and the request beside it; the defaults where neither says anything."""
        refuse_unsupported(asked)
        named = None if asked.model is None else parse_model(asked.model, self._settings.name)
        items: Sequence[Item] = self._shelf.defaults
        if named is not None or asked.steering is not None:
            items = [*(named or ()), *(asked.steering or ())]
        return self._shelf.resolve(items)

    def _chat_prompt(self, asked: ChatAsked) -> list[int]:
        try:
            messages = read_conversation(asked.messages)
        except InputError as error:
            raise ApiError(400, "invalid_messages", str(error), "messages") from None
        try:
            return self._tokens(self._model.chat_template.prompt(messages))
        except IrmLiteError as error:
            raise of_prompt(error) from None

    def _text_prompt(self, asked: CompletionAsked) -> list[int]:
        given = asked.prompt
        if isinstance(given, list) and len(given) == 1 and isinstance(given[0], str):
            given = given[0]
        if isinstance(given, str):
            if not is_utf8(given):
                raise ApiError(400, "invalid_parameter", "the prompt holds half a character: send whole Unicode", "prompt")
            return self._tokens(given)
        ids = [each for each in given if isinstance(each, int)]
        if len(ids) != len(given):
            raise ApiError(400, "unsupported_parameter", "several prompts at once are not supported here: send one", "prompt")
        if not all(0 <= token < self._model.n_vocabulary for token in ids):
            limit = self._model.n_vocabulary
            raise ApiError(400, "invalid_parameter", f"the prompt has a token outside of the vocabulary of {limit}", "prompt")
        return self._fitting(ids)

    def _tokens(self, text: str) -> list[int]:
        """Of a text that cannot fit none are made: llama.cpp's time for it may grow with the square of its length."""
        size, room = len(text.encode()), self._pool.n_ctx
        if size > room and size > room * self._longest_token:
            message = f"the prompt of {size} bytes is more than a context of {room} tokens takes: send a shorter one"
            raise ApiError(400, "context_length_exceeded", message, "messages")
        return self._fitting(self._model.vocabulary.tokenize_prompt(text))

    @cached_property
    def _longest_token(self) -> int:
        """Bytes of the vocabulary's longest piece of text."""
        return max(len(self._model.piece(token, special=True)) for token in range(self._model.n_vocabulary))

    def _fitting(self, ids: list[int]) -> list[int]:
        if not ids:
            raise ApiError(400, "invalid_parameter", "the prompt is empty", "prompt")
        if len(ids) >= self._pool.n_ctx:
            message = f"the prompt of {len(ids)} tokens fills the context of {self._pool.n_ctx}: send a shorter one"
            raise ApiError(400, "context_length_exceeded", message, "messages")
        return ids

    def _answer(self, asked: Asked, request: Request, prompt: list[int], steering: Steering, most: int | None) -> Answer:
        limits = self._settings.limits
        sampling = Sampling(
            asked.temperature or 0.0,
            asked.seed or 0,
            TOP_P if asked.top_p is None else asked.top_p,
            1.0 if asked.repeat_penalty is None else asked.repeat_penalty,
        )
        continued = self._settings.continued if asked.cache_prompt is None else asked.cache_prompt
        manner = Manner(sampling, min(most or limits.tokens, limits.tokens), asked.norms or asked.outputs, continued)
        client = request.client.host if request.client else ""
        job = Job(
            prompt,
            manner,
            steering,
            hear=unheard,
            stops=asked.stops,
            streamed=bool(asked.stream),
            pictured=asked.outputs,
            group=f"{client} {asked.user or ''}",
            deadline=time.monotonic() + limits.seconds,
        )
        name = asked.model or self._settings.name
        about = (isinstance(asked, ChatAsked), name, steering, len(prompt), self._fingerprint, int(time.time()))
        form = Form(*about, norms=asked.norms, outputs=asked.outputs)
        if self._log.prompts:
            pieces = [self._model.piece(each, special=True) for each in prompt]
            self._log.say("prompt", id=form.id, text=b"".join(pieces).decode(errors="replace"))
        return Answer(self._pool, job, form, self._log, self._metrics, self._live)
