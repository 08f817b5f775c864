"""The line protocol to `irm-lite serve` (docs/serve.md): requests go out, events come back as messages.

The server is this UI's own: it ends with it, at the end of its standard input.
"""

import base64
import binascii
import contextvars
import json
import queue
import subprocess
import threading
from contextlib import suppress
from typing import Any

import numpy as np
from textual.message import Message
from textual.message_pump import MessagePump

from irm_lite_tui.watch import children

_LARGEST = 1e30  # beyond any number of the protocol, and far from what floats overflow at
_LONGEST_LINE = 1 << 24  # bytes: the outputs of one token of the largest models are a tenth of it

_SHAPES: dict[str, dict[str, type | tuple[type, ...]]] = {
    "loading": {"what": str},
    "ready": {"protocol": int, "model": dict, "columns": dict},
    "start": {"column": str},
    "token": {"column": str, "token": int, "text": str, "norm": (int, float, type(None))},
    "end": {"column": str, "reason": str, "text": str},
    "set": {"columns": dict},
    "outputs": {"column": str, "token": int, "strength": (int, float), "layers": list, "shape": list, "float16": str},
    "error": {"text": str},
}


class ServeSaid(Message):
    """`irm-lite serve` sent an event (docs/serve.md), checked."""

    def __init__(self, serve: "Serve", event: dict[str, Any]) -> None:
        super().__init__()
        self.serve, self.event = serve, event


class ServeEnded(Message):
    """`irm-lite serve` has ended: with this exit code and this last line on stderr."""

    def __init__(self, serve: "Serve", code: int, last: str) -> None:
        super().__init__()
        self.serve, self.code, self.last = serve, code, last


class Serve:
    """One server. `target` gets a ServeSaid for each event and a ServeEnded at the end. `template`: a chat template's file."""

    def __init__(self, gguf: str, target: MessagePump, template: str = "") -> None:
        given = ("--chat-template", template) if template else ()
        self.command = (*children.PROGRAM, "serve", "--json", "--gguf", gguf, *given)
        self.target = target
        self._process: subprocess.Popen[bytes] | None = None
        self._outbox: queue.Queue[dict[str, Any]] = queue.Queue()
        self._count = 0
        self._heard = True
        self._last = ""

    def start(self) -> None:
        """Start the process, and the threads that read and write. Raises OSError where it cannot be started."""
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(self.command, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True)
        errors = threading.Thread(target=self._read_errors, args=(self._process,), daemon=True)
        errors.start()
        context = contextvars.copy_context()  # Textual finds its app by it
        threading.Thread(target=context.run, args=(self._read, self._process, errors), daemon=True).start()
        threading.Thread(target=self._write, args=(self._process,), daemon=True).start()

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def memory(self) -> int | None:
        """Resident bytes, mapped weights included; None where it has ended."""
        import psutil  # 20 ms that the first frame need not wait for

        try:
            return int(psutil.Process(self._process.pid).memory_info().rss) if self._process is not None else None
        except psutil.Error:
            return None

    def ask(self, do: str, **values: Any) -> int:
        """Send a request; returns its id."""
        self._count += 1
        self._outbox.put({"id": self._count, "do": do, **values})
        return self._count

    def end(self) -> None:
        """End the process; nothing more is heard of it."""
        self._heard = False
        if self._process is not None and self.running:
            self._process.terminate()  # it holds nothing that could be lost

    def _write(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        with suppress(OSError):  # its end is told by the reader
            while process.poll() is None:
                with suppress(queue.Empty):
                    request = self._outbox.get(timeout=0.5)
                    process.stdin.write(json.dumps(request).encode() + b"\n")
                    process.stdin.flush()

    def _read(self, process: subprocess.Popen[bytes], errors: threading.Thread) -> None:
        assert process.stdout is not None
        while line := process.stdout.readline(_LONGEST_LINE):
            event = read_event(line)
            if event is not None:
                self._post(ServeSaid(self, event))
        code = process.wait()
        errors.join()
        self._post(ServeEnded(self, code, self._last))

    def _read_errors(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stderr is not None
        while line := process.stderr.readline(_LONGEST_LINE):
            self._last = line[:2000].decode("utf-8", "replace").strip() or self._last

    def _post(self, message: ServeSaid | ServeEnded) -> None:
        with suppress(RuntimeError):  # the UI is gone
            if self._heard:
                self.target.post_message(message)


def read_event(line: bytes) -> dict[str, Any] | None:
    """The event in a line; a line that is not one becomes an error event. None: a kind of event that this UI does not know."""
    try:
        event = json.loads(line, parse_constant=_refuse)
        shape = _SHAPES.get(event["kind"])
        if shape is None:
            return None
        for key, kinds in shape.items():
            if not isinstance(event[key], kinds) or _too_large(event[key]):
                raise TypeError(key)
        _check_inside(event)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        start = line[:60].decode("utf-8", "replace").strip()
        return {"kind": "error", "text": f"irm-lite serve printed a line that is not an event: {start}"}
    found: dict[str, Any] = event
    return found


def read_outputs(event: dict[str, Any]) -> tuple[np.ndarray[Any, np.dtype[np.float16]], list[int]]:
    """The values (L, H) and the L layers of an outputs event. Raises ValueError where they do not belong together."""
    try:
        values = np.frombuffer(base64.b64decode(event["float16"], validate=True), dtype="<f2").reshape(event["shape"])
        layers = [int(layer) for layer in event["layers"]]
    except (TypeError, OverflowError, binascii.Error) as error:
        raise ValueError(error) from None
    if values.ndim != 2 or len(layers) != len(values) or not values.size:
        raise ValueError(f"values of shape {values.shape}, {len(layers)} layers")
    return values, layers


def _refuse(constant: str) -> None:
    """NaN and infinity are not JSON, and cannot be drawn."""
    raise ValueError(constant)


def _too_large(value: object) -> bool:
    """Whether a number overflows: Python reads 1e999 as infinity, and integers that no float holds."""
    return isinstance(value, int | float) and not abs(value) < _LARGEST


def _check_inside(event: dict[str, Any]) -> None:
    """Raise TypeError or KeyError where a nested part is not as docs/serve.md has it."""
    if event["kind"] == "ready":
        model = event["model"]
        if not isinstance(model["path"], str) or not isinstance(model["n_layers"], int) or model["n_layers"] < 1:
            raise TypeError("model")
        for about in event["columns"].values():
            if not isinstance(about.get("layers", ""), str) or not isinstance(about.get("sources", []), list):
                raise TypeError("columns")
    elif event["kind"] == "start":
        _check_steering(event)
    elif event["kind"] == "set":
        for about in event["columns"].values():
            if not isinstance(about["token"], int):
                raise TypeError("token")
            _check_steering(about)


def _check_steering(about: dict[str, Any]) -> None:
    """Raise TypeError where a strength is no number, or layers no text; an adapter has a strength and no layers."""
    if "strength" not in about:
        return
    layers = about.get("layers", "")
    if not isinstance(about["strength"], int | float) or _too_large(about["strength"]) or not isinstance(layers, str):
        raise TypeError("strength")
