"""From a port to a running server, and to its end."""

import asyncio
import ipaddress
import signal
import socket
from collections.abc import Callable
from contextlib import suppress

import uvicorn

from irm_lite.core.errors import InputError
from irm_lite.llamacpp import Model
from irm_lite.serve.http.app import House, make_app
from irm_lite.serve.http.log import Log
from irm_lite.serve.http.pool import Pool
from irm_lite.serve.http.settings import Settings
from irm_lite.serve.http.shelf import Shelf

_TOLD = 5  # seconds to tell clients that their answers were ended; who does not listen is cut off then
_OTHER_CONNECTIONS = 128  # beside those of the answers: for /health, pages, and who has not asked yet


class HttpServer(uvicorn.Server):
    """uvicorn's, which says when it can be asked, and ends answers that do not end in time: cut off they would be no HTTP."""

    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], None], end_answers: Callable[[], None], grace: float) -> None:
        super().__init__(config)
        self._on_ready, self._end_answers, self._grace = on_ready, end_answers, grace

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        ending = asyncio.get_running_loop().call_later(self._grace, self._end_answers)
        try:
            await super().shutdown(sockets)
        finally:
            ending.cancel()


def bind(settings: Settings) -> socket.socket:
    """The place to listen at, taken before anything slow is loaded. Raises InputError where it cannot be had, or where others could
    reach it and no key is set."""
    where = f"port {settings.port} of {settings.host}"
    try:
        family, kind, number, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError, OverflowError) as error:
        raise InputError(f"{where} cannot be used ({error})", "give --host an address of this machine") from None
    if not is_loopback(str(address[0])) and settings.key is None:
        raise InputError(
            f"others can reach {settings.host}, and no key is set", "give --api-key-file FILE, or set IRM_LITE_API_KEY"
        )
    listening = socket.socket(family, kind, number)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(0)  # so that a second server is refused now; asked it can be once it is ready
    except (OSError, OverflowError) as error:
        listening.close()
        raise InputError(f"{where} cannot be used ({error})", "end what uses it, or choose another with --port") from None
    return listening


def is_loopback(address: str) -> bool:
    """Whether only this machine can reach it."""
    try:
        return ipaddress.ip_address(address.partition("%")[0]).is_loopback
    except ValueError:
        return False


def url_of(listening: socket.socket) -> str:
    """Where clients find it."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def make_server(house: House, listening: socket.socket, on_ready: Callable[[], None]) -> HttpServer:
    """A server that has yet to run (`run(sockets=[listening])`)."""
    settings, limits = house.settings, house.settings.limits
    app = make_app(house, is_loopback(listening.getsockname()[0]))
    config = uvicorn.Config(
        app,
        http="h11",
        ws="none",
        lifespan="off",
        loop="asyncio",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=int(settings.grace) + _TOLD,
        limit_concurrency=settings.contexts + limits.waiting + _OTHER_CONNECTIONS,
    )
    return HttpServer(config, on_ready, house.pool.end, settings.grace)


def serve_http(model: Model, shelf: Shelf, settings: Settings, listening: socket.socket, on_ready: Callable[[], None]) -> None:
    """Serve until the process is asked to end; running answers get `settings.grace` seconds then."""
    log = Log(settings.quiet, settings.log_prompts)
    log.listen()
    with Pool(model, contexts=settings.contexts, n_ctx=settings.context, most_waiting=settings.limits.waiting) as pool:
        server = make_server(House(model, shelf, pool, settings, log), listening, on_ready)
        if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.default_int_handler:
            signal.signal(signal.SIGHUP, server.handle_exit)  # a closed terminal ends it like the others
        # uvicorn raises the signal that ended it once more, which the command line takes for an interruption.
        with suppress(KeyboardInterrupt):
            server.run(sockets=[listening])
