"""What stands before every request: who may ask, from where, and how much of it."""

import asyncio
import hashlib
import hmac
import time
from collections.abc import Callable

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from irm_lite.serve.http.errors import ApiError
from irm_lite.serve.http.log import Log
from irm_lite.serve.http.metrics import Metrics
from irm_lite.serve.http.settings import Settings

_OPEN = ("/", "/page.css", "/page.js", "/health")  # without a key: a page that asks for it, and what watches the server
LOOPBACK = ("localhost", "127.0.0.1", "[::1]")


class Guard:
    """ASGI middleware. Takes in the whole body, within its limits, before anything else sees the request."""

    def __init__(self, app: ASGIApp, settings: Settings, hosts: tuple[str, ...] | None) -> None:
        """`hosts`: the names that a request may be sent to, or None for any: a web page of a stranger that has its own name point
        at this machine sends that name."""
        self._app, self._settings, self._hosts = app, settings, hosts
        self._key = None if settings.key is None else _digest(settings.key.encode())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        try:
            headers = Headers(scope=scope)
            self._check_host(headers)
            self._check_origin(headers)
            self._check_key(scope["path"], headers)
            if scope["method"] in ("POST", "PUT", "PATCH"):
                receive = await self._whole(scope, headers, receive)
        except ApiError as error:
            await refuse(error)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _check_host(self, headers: Headers) -> None:
        name = host_name(headers.get("host", ""))
        if self._hosts is not None and name not in self._hosts:
            raise ApiError(403, "forbidden_host", f"this server is not {name[:80]!r}: ask for {self._hosts[0]}")

    def _check_origin(self, headers: Headers) -> None:
        """Browsers say what page asks; programs do not."""
        origin = headers.get("origin")
        if origin is None or origin in self._settings.origins or origin.partition("://")[2] == headers.get("host"):
            return
        raise ApiError(403, "forbidden_origin", f"the page {origin[:80]!r} may not ask here: name it with --allow-origin")

    def _check_key(self, path: str, headers: Headers) -> None:
        if self._key is None or path in _OPEN:
            return
        scheme, _, given = headers.get("authorization", "").partition(" ")
        # Digests of equal length, compared in the same time wherever they differ.
        same = hmac.compare_digest(_digest(given.strip().encode("latin-1", "replace")), self._key)
        if scheme.lower() != "bearer" or not same:
            raise ApiError(401, "invalid_api_key", "the key is missing or wrong: send it as Authorization: Bearer KEY")

    async def _whole(self, scope: Scope, headers: Headers, receive: Receive) -> Receive:
        """The body, and a `receive` that has it at once. JSON alone: any page may send a form without being asked who it is."""
        limits = self._settings.limits
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length[:18]) > limits.body_bytes:
            raise _too_long(limits.body_bytes)
        if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise ApiError(415, "unsupported_media_type", "the body is not JSON: send it as Content-Type: application/json")
        body = bytearray()
        try:
            async with asyncio.timeout(limits.body_seconds):
                more = True
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise ApiError(400, "client_left", "the request ended before its body did")
                    body += message.get("body", b"")
                    more = message.get("more_body", False)
                    if len(body) > limits.body_bytes:
                        raise _too_long(limits.body_bytes)
        except TimeoutError:
            raise ApiError(408, "body_timeout", f"the body did not arrive within {limits.body_seconds:g} seconds") from None
        first: list[Message] = [{"type": "http.request", "body": bytes(body), "more_body": False}]

        async def replay() -> Message:
            return first.pop() if first else await receive()

        return replay


class Watched:
    """ASGI middleware, outermost: counts and logs each request."""

    def __init__(self, app: ASGIApp, log: Log, metrics: Metrics, paths: Callable[[], set[str]]) -> None:
        self._app, self._log, self._metrics, self._paths = app, log, metrics, paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.monotonic(), 0

        async def heard(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, heard)
        finally:
            path = scope["path"] if scope["path"] in self._paths() else "other"
            self._metrics.requests.labels(path, str(status)).inc()
            about = {"method": scope["method"], "path": path, "status": status, "client": (scope.get("client") or ("",))[0]}
            self._log.say("request", **about, seconds=round(time.monotonic() - began, 4))


def host_name(host: str) -> str:
    """Without the port."""
    name, _, port = host.rpartition(":")
    return (name if port.isdecimal() else host).lower()


def refuse(error: ApiError) -> JSONResponse:
    """The response that says it."""
    return JSONResponse(error.document(), error.status, error.headers)


def _too_long(limit: int) -> ApiError:
    return ApiError(413, "body_too_large", f"the body has more than {limit} bytes: send less")


def _digest(text: bytes) -> bytes:
    return hashlib.sha256(text).digest()
