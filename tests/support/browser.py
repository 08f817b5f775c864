"""Headless Chromium by chromedriver's WebDriver protocol: as much as a test of one page needs."""

import base64
import json
import re
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

CHROMIUM, DRIVER = shutil.which("chromium") or shutil.which("chromium-browser"), shutil.which("chromedriver")
_FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
]  # fmt: skip


class Page:
    """A window. Raises urllib's HTTPError where the browser refuses."""

    def __init__(self, server: str, session: str) -> None:
        self._at = f"{server}/session/{session}"

    def open(self, place: Path | str) -> None:
        """A file, or a page at an address."""
        call(f"{self._at}/url", {"url": place if isinstance(place, str) else place.absolute().as_uri()})

    def run(self, script: str, *arguments: Any) -> Any:
        """What the script returns; it finds the arguments in `arguments`."""
        return call(f"{self._at}/execute/sync", {"script": script, "args": list(arguments)})

    def until(self, condition: str) -> None:
        """Wait until a JavaScript expression is true; looked at with each frame. Raises HTTPError where it does not come true."""
        look = f"const look = () => ({condition}) ? done(true) : requestAnimationFrame(look); look();"
        call(f"{self._at}/execute/async", {"script": f"const done = arguments[arguments.length - 1]; {look}", "args": []})

    def await_result(self, script: str) -> Any:
        """What the promise that the expression gives comes to."""
        told = f"const done = arguments[arguments.length - 1]; ({script}).then(done, (error) => done(String(error)));"
        return call(f"{self._at}/execute/async", {"script": told, "args": []})

    def picture(self) -> bytes:
        """The window as a PNG."""
        return base64.b64decode(call(f"{self._at}/screenshot", None, "GET"))

    def act(self, *steps: dict[str, Any], device: str = "pointer") -> None:
        """Move, press and release, as WebDriver has it: the whole list, then done."""
        call(f"{self._at}/actions", {"actions": [{"type": device, "id": device, "actions": list(steps)}]})

    def move(self, x: float, y: float) -> None:
        """The mouse, to CSS pixels of the window."""
        self.act(_to(x, y))

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        self.act(_to(*start), {"type": "pointerDown", "button": 0}, _to(*end), {"type": "pointerUp", "button": 0})

    def scroll(self, x: float, y: float, down: int) -> None:
        self.act(
            {"type": "scroll", "x": round(x), "y": round(y), "deltaX": 0, "deltaY": down, "origin": "viewport"}, device="wheel"
        )

    def press(self, *keys: str) -> None:
        """Keys by WebDriver's code points."""
        self.act(*({"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")), device="key")

    def console(self) -> list[dict[str, Any]]:
        """What the page logged since the last call, refused loads and errors among it."""
        found: list[dict[str, Any]] = call(f"{self._at}/se/log", {"type": "browser"})
        return found


def _to(x: float, y: float) -> dict[str, Any]:
    return {"type": "pointerMove", "x": round(x), "y": round(y), "duration": 0, "origin": "viewport"}


@contextmanager
def opened(profile: Path, *flags: str) -> Iterator[Page]:
    """A fresh browser with `profile`, an empty folder, for its files."""
    assert CHROMIUM is not None
    assert DRIVER is not None
    driver = subprocess.Popen([DRIVER, "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert driver.stdout is not None
    try:
        port = next(match[1] for line in driver.stdout if (match := re.search(r"successfully on port (\d+)", line)))
        server = f"http://127.0.0.1:{port}"
        options = {"binary": CHROMIUM, "args": [*_FLAGS, f"--user-data-dir={profile}", *flags]}
        wanted = {"browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        session = call(f"{server}/session", {"capabilities": {"alwaysMatch": wanted}})["sessionId"]
        try:
            yield Page(server, session)
        finally:
            with suppress(OSError):
                call(f"{server}/session/{session}", None, "DELETE")
    finally:
        driver.terminate()
        driver.wait()
        driver.stdout.close()


def call(address: str, body: dict[str, Any] | None, method: str = "POST") -> Any:
    request = urllib.request.Request(
        address, None if body is None else json.dumps(body).encode(), {"Content-Type": "application/json"}, method=method
    )
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=120) as response:
        return json.loads(response.read())["value"]
