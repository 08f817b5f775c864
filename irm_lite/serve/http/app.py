"""The paths, and what each does."""

import time
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp

from irm_lite.core.version import __version__
from irm_lite.llamacpp import Model
from irm_lite.serve.http.answers import respond
from irm_lite.serve.http.asking import Asking
from irm_lite.serve.http.documents import model_document
from irm_lite.serve.http.errors import ApiError
from irm_lite.serve.http.guard import LOOPBACK, Guard, Watched, host_name, refuse
from irm_lite.serve.http.log import Log
from irm_lite.serve.http.metrics import Metrics
from irm_lite.serve.http.names import model_names, parse_model
from irm_lite.serve.http.page import add_page
from irm_lite.serve.http.pool import Pool
from irm_lite.serve.http.schema import ChatAsked, CompletionAsked, Defaults, Loaded, Unloaded
from irm_lite.serve.http.settings import Settings
from irm_lite.serve.http.shelf import Shelf


@dataclass(frozen=True)
class House:
    """All that a server works with."""

    model: Model
    shelf: Shelf
    pool: Pool
    settings: Settings
    log: Log


def make_app(house: House, loopback: bool) -> ASGIApp:
    """The server as an ASGI application. `loopback`: only this machine can reach it."""
    api = FastAPI(title="irm-lite", version=__version__, docs_url=None, redoc_url=None)
    metrics = Metrics(lambda: house.pool.waiting, lambda: house.pool.active)
    _add_errors(api, house.log)
    _add_models(api, house)
    _add_completions(api, Asking(house.model, house.shelf, house.pool, house.settings, house.log, metrics))
    _add_steering(api, house.shelf, house.pool)

    add_page(api)

    @api.get("/health")
    async def health() -> Response:
        alive = house.pool.alive
        return JSONResponse({"status": "ok" if alive else "failed"}, 200 if alive else 503)

    @api.get("/metrics")
    async def counted() -> Response:
        return Response(metrics.text(), media_type=metrics.content_type)

    settings = house.settings
    named = (host_name(origin.partition("://")[2]) for origin in settings.origins)
    hosts = tuple(dict.fromkeys((*LOOPBACK, settings.host.lower(), *named))) if loopback else None
    app: ASGIApp = Guard(api, settings, hosts)
    if settings.origins:
        app = CORSMiddleware(app, allow_origins=settings.origins, allow_methods=["GET", "POST"], allow_headers=["*"])
    paths = {getattr(route, "path", "") for route in api.routes}
    return Watched(app, house.log, metrics, lambda: paths)


def _add_models(api: FastAPI, house: House) -> None:
    name, since = house.settings.name, int(time.time())

    @api.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [model_document(each, since) for each in model_names(name, house.shelf.names)]}

    @api.get("/v1/models/{asked:path}")
    async def model(asked: str) -> dict[str, Any]:
        house.shelf.resolve(parse_model(asked, name) or ())
        return model_document(asked, since)


def _add_completions(api: FastAPI, asking: Asking) -> None:
    @api.post("/v1/chat/completions")
    async def chat(asked: ChatAsked, request: Request) -> Response:
        answer = await asking.chat(asked, request)
        return await respond(request, answer, bool(asked.stream), asking.with_usage(asked))

    @api.post("/v1/completions")
    async def complete(asked: CompletionAsked, request: Request) -> Response:
        answer = await asking.completion(asked, request)
        return await respond(request, answer, bool(asked.stream), asking.with_usage(asked))

    @api.post("/v1/answers/{identity}/steering")
    async def turn(identity: str, asked: Defaults) -> dict[str, Any]:
        return asking.turn(identity, asked.steering)


def _add_steering(api: FastAPI, shelf: Shelf, pool: Pool) -> None:
    def told() -> dict[str, Any]:
        defaults = [item.model_dump(exclude_none=True) for item in shelf.defaults]
        return {"object": "steering", "steering": defaults, "available": shelf.documents(), "files": shelf.files()}

    @api.get("/v1/steering")
    async def steering() -> dict[str, Any]:
        return told()

    @api.get("/v1/steering/{name}")
    async def one(name: str) -> dict[str, Any]:
        return shelf.picture(name)

    @api.post("/v1/steering")
    async def set_defaults(asked: Defaults) -> dict[str, Any]:
        shelf.set_defaults(asked.steering)
        return told()

    @api.post("/v1/steering/load")
    async def load(asked: Loaded) -> dict[str, Any]:
        await run_in_threadpool(shelf.load, asked.file, asked.name, asked.kind, pool.between)
        await run_in_threadpool(pool.keep_irms, shelf.irms)  # one may have been replaced
        return told()

    @api.post("/v1/steering/unload")
    async def unload(asked: Unloaded) -> dict[str, Any]:
        shelf.unload(asked.name)
        await run_in_threadpool(pool.keep_irms, shelf.irms)
        return told()


def _add_errors(api: FastAPI, log: Log) -> None:
    @api.exception_handler(ApiError)
    async def refused(_request: Request, error: ApiError) -> JSONResponse:
        return refuse(error)

    @api.exception_handler(RequestValidationError)
    async def malformed(_request: Request, error: RequestValidationError) -> JSONResponse:
        return refuse(_of_validation(error))

    @api.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> JSONResponse:
        code = {404: "not_found", 405: "method_not_allowed", 400: "invalid_json"}.get(error.status_code, "refused")
        message = "the body cannot be read as JSON" if error.status_code == 400 else f"{error.detail}: {request.url.path[:80]!r}"
        return refuse(ApiError(error.status_code, code, message))

    @api.exception_handler(Exception)
    async def failed(_request: Request, error: Exception) -> JSONResponse:
        log.say("failure", text=f"unexpected error ({type(error).__name__})")
        return refuse(ApiError(500, "internal_error", f"unexpected error ({type(error).__name__})"))


def _of_validation(error: RequestValidationError) -> ApiError:
    """The first thing that is wrong; what was sent is not repeated."""
    first = error.errors()[0]
    place = ".".join(str(each) for each in first["loc"] if each != "body")[:120]
    match first["type"]:
        case "json_invalid":
            return ApiError(400, "invalid_json", "the body is not JSON")
        case "missing":
            return ApiError(400, "missing_parameter", f"{place or 'the body'} is missing", place or None)
        case "extra_forbidden":
            return ApiError(400, "unknown_parameter", f"there is no {place}", place)
    return ApiError(400, "invalid_parameter", f"{place or 'the body'}: {first['msg']}", place or None)
