"""An HTTP server of irm-lite on a free port, in a thread of this process; and the official client for it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event, Thread

from openai import OpenAI

from irm_lite.llamacpp import Model
from irm_lite.serve.http.app import House
from irm_lite.serve.http.log import Log
from irm_lite.serve.http.pool import Pool
from irm_lite.serve.http.run import HttpServer, bind, make_server, url_of
from irm_lite.serve.http.settings import Settings
from irm_lite.serve.http.shelf import Shelf

PATIENCE = 120.0  # seconds that a test waits for what must come


@dataclass
class LiveServer:
    """Where it is, and what is behind it."""

    url: str
    port: int
    house: House
    server: HttpServer

    @property
    def pool(self) -> Pool:
        return self.house.pool

    def client(self, key: str = "none") -> OpenAI:
        """The official client, without its own retries."""
        return OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0, timeout=PATIENCE)


@contextmanager
def live_server(model: Model, shelf: Shelf, settings: Settings, log: Log | None = None) -> Iterator[LiveServer]:
    """Up when this gives it, and ended behind it."""
    up = Event()
    with bind(settings) as listening, _pool(model, settings) as pool:
        house = House(model, shelf, pool, settings, log or Log(quiet=True))
        server = make_server(house, listening, up.set)
        thread = Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        try:
            assert up.wait(PATIENCE)
            yield LiveServer(url_of(listening), listening.getsockname()[1], house, server)
        finally:
            server.should_exit = True
            thread.join(PATIENCE)
        assert not thread.is_alive()


def _pool(model: Model, settings: Settings) -> Pool:
    return Pool(model, contexts=settings.contexts, n_ctx=settings.context, most_waiting=settings.limits.waiting)
