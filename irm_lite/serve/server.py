"""Requests in, events out: the columns of one model, written token by token in turn (docs/serve.md)."""

import base64
import queue
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from irm_lite.core.errors import InputError, IrmLiteError
from irm_lite.core.files.paths import expanded
from irm_lite.core.version import __version__
from irm_lite.llamacpp import Model, Runtime
from irm_lite.serve.column import Column, End
from irm_lite.serve.request import PROTOCOL, Chat, Id, Load, Name, Outputs, Quit, Request, Set, Stop, id_of, parse, read_line
from irm_lite.steering.layers import format_layers

Event = dict[str, Any]
Inbox = queue.Queue[bytes | None]  # lines; None: no more will come


class Server:
    """The columns of one model. Use it as a context manager; the model must outlive it."""

    def __init__(self, model: Model, emit: Callable[[Event], None], *, context: int = 4096) -> None:
        """`emit` gets every event. Raises InputError or LlamaCppError where the context cannot be made."""
        self._model = model
        self._emit = emit
        self._context = context
        self._columns: dict[Name, Column] = {"base": Column("base", Runtime(model, n_ctx=context))}
        self._about: dict[Name, Event] = {"base": {}}
        self._waiting: deque[Chat] = deque()
        self._chat: Chat | None = None  # the latest
        self._active: dict[Name, Column] = {}
        self._began = 0.0

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: object) -> None:
        for name in list(self._columns):
            self._remove(name)

    def load_vector(self, sources: tuple[str, ...]) -> None:
        """Make the column `vector` of PATH[:SCALE] arguments, which add up; of none: remove it. Raises VectorError."""
        from irm_lite.steering.control_vector import load_sum

        vector = load_sum(sources)
        if vector is None:
            self._remove("vector")
            return
        runtime = Runtime(self._model, n_ctx=self._context)
        try:
            runtime.set_vector(vector)
        except BaseException:
            runtime.close()
            raise
        match = vector.require_fit(self._model.fingerprint, self._model.path.name)
        self._replace(Column("vector", runtime, vector), {"sources": list(sources), **asdict(match)})

    def load_irm(self, run: str | None) -> None:
        """Make the column `irm` of a run directory; of None: remove it. Raises RunError, VectorError or InputError."""
        if run is None:
            self._remove("irm")
            return
        from irm_lite.runs.trained import load_run

        trained = load_run(expanded(run))
        match = trained.match(self._model.fingerprint, self._model.path.name)
        runtime = Runtime(self._model, irm=trained.irm, n_ctx=self._context)
        self._replace(Column("irm", runtime), {"sources": [run], **asdict(match)})

    def load_adapter(self, sources: tuple[str, ...]) -> None:
        """Make the column `adapter` of PATH[:SCALE] arguments, which work together; of none: remove it. Raises VectorError."""
        from irm_lite.llamacpp.adapters import load_all

        if not sources:
            self._remove("adapter")
            return
        loaded = load_all(self._model, sources)
        runtime = Runtime(self._model, n_ctx=self._context)
        matches = [asdict(adapter.match) for adapter, _ in loaded]
        told = {key: next(filter(None, (each[key] for each in matches)), None) for key in ("warning", "note")}
        self._replace(Column("adapter", runtime, adapters=loaded), {"sources": list(sources), **told})

    def ready(self, identity: Id = None) -> None:
        """Say what is loaded."""
        model = {
            "path": str(self._model.path),
            "n_layers": self._model.n_layers,
            "hidden_size": self._model.hidden_size,
            "context": self._columns["base"].n_ctx,
        }
        columns = {
            name: self._about[name] | ({"layers": format_layers(column.layers)} if column.layers else {})
            for name, column in self._columns.items()
        }
        about = {"protocol": PROTOCOL, "version": __version__, "model": model, "columns": columns}
        self._emit({"kind": "ready", "id": identity, **about})

    def run(self, inbox: Inbox) -> None:
        """Serve until `quit`, or until no more lines will come and all that was asked is answered."""
        more = True
        while more or self._active or self._waiting:
            wait = not (self._active or self._waiting)
            while more:  # everything that has come, so that many moves of a slider cost one prefill
                try:
                    line = inbox.get(block=wait)
                except queue.Empty:
                    break
                wait = False
                if line is None:
                    more = False
                elif not self._take(line):
                    return
            self._advance()

    def _take(self, line: bytes) -> bool:
        """One line; False where it was the last."""
        if not line.strip():
            return True
        identity: Id = None
        try:
            document = read_line(line)
            identity = id_of(document)
            request = parse(document)
            if isinstance(request, Quit):
                return False
            self._do(request)
        except IrmLiteError as error:
            self._error(identity, error)
        except (OSError, ValueError) as error:  # a place that cannot be a path
            self._error(identity, InputError(f"that cannot be loaded ({error})"[:300], "check the path"))
        return True

    def _do(self, request: Request) -> None:
        match request:
            case Chat():
                self._waiting.append(request)
            case Set():
                self._set(request)
            case Load():
                self._load(request)
            case Outputs():
                self._outputs(request)
            case Stop():
                self._stop()

    def _advance(self) -> None:
        """Begin with the next conversation where nothing is being written; then one token in each column."""
        if not self._active and self._waiting:
            self._begin(self._waiting.popleft())
        for name, column in list(self._active.items()):
            try:
                step = column.step()
            except IrmLiteError as error:
                del self._active[name]
                self._error(self._asked, error, name)
                continue
            if isinstance(step, End):
                self._end(name, step)
            else:
                event = {"kind": "token", "id": self._asked, "column": name, "token": step.number, "text": step.text}
                self._emit({**event, "norm": step.norm})

    @property
    def _asked(self) -> Id:
        return self._chat.id if self._chat is not None else None

    def _begin(self, chat: Chat) -> None:
        self._chat, self._began = chat, time.monotonic()
        for name in chat.messages:
            try:
                column = self._column(name)
                prompt_tokens = column.begin(chat)
            except IrmLiteError as error:
                self._error(chat.id, error, name)
                continue
            self._active[name] = column
            self._emit({"kind": "start", "id": chat.id, "column": name, "prompt_tokens": prompt_tokens, **_steering(column)})

    def _end(self, name: Name, end: End) -> None:
        column = self._active.pop(name)
        seconds = round(time.monotonic() - self._began, 3)
        event = {"kind": "end", "id": self._asked, "column": name, "reason": end.reason, "text": column.text}
        self._emit({**event, "tokens": len(column.written), "seconds": seconds})

    def _set(self, request: Set) -> None:
        """All columns or none: nothing changes where the layers are wrong for one of them."""
        wanted = {}
        for name, column in self._active.items():
            strength, layers = column.steering
            chosen = layers if request.layers is None else column.choose(request.layers)
            wanted[name] = (strength if request.strength is None else request.strength, chosen)
        for name, steering in wanted.items():
            self._active[name].steer(*steering)
        columns = {name: {"token": len(each.written), **_steering(each)} for name, each in self._active.items()}
        self._emit({"kind": "set", "id": request.id, "chat": self._asked, "columns": columns})

    def _load(self, request: Load) -> None:
        if self._active or self._waiting:
            raise InputError("an answer is being written", "stop it first, or wait for its end")
        self._emit({"kind": "loading", "id": request.id, "what": ", ".join(request.sources) or f"no {request.column}"})
        try:
            if request.column == "vector":
                self.load_vector(request.sources)
            elif request.column == "adapter":
                self.load_adapter(request.sources)
            else:
                self.load_irm(next(iter(request.sources), None))
        except IrmLiteError as error:
            self._error(request.id, error, request.column)
            return
        self.ready(request.id)

    def _outputs(self, request: Outputs) -> None:
        found = self._column(request.column).added_at(request.token)
        self._emit(
            {
                "kind": "outputs",
                "id": request.id,
                "chat": self._asked,
                "column": request.column,
                "token": request.token,
                "strength": found.strength,
                "layers": list(found.layers),
                "shape": list(found.outputs.shape),
                "float16": base64.b64encode(found.outputs.astype("<f2").tobytes()).decode(),
            }
        )

    def _stop(self) -> None:
        for name in list(self._active):
            self._end(name, self._active[name].stop())
        for chat in self._waiting:
            for name in chat.messages:
                event = {"kind": "end", "id": chat.id, "column": name, "reason": "stopped", "text": ""}
                self._emit({**event, "tokens": 0, "seconds": 0.0})
        self._waiting.clear()

    def _column(self, name: Name) -> Column:
        if name not in self._columns:
            source = {"vector": "V.gguf", "irm": "RUN", "adapter": "A.gguf"}[name]
            hint = f'{{"do": "load", "{name}": "{source}"}}'
            raise InputError(f"there is no {name} to answer", f"load one: {hint}")
        return self._columns[name]

    def _replace(self, column: Column, about: Event) -> None:
        self._remove(column.name)
        self._columns[column.name], self._about[column.name] = column, about

    def _remove(self, name: Name) -> None:
        if name in self._columns:
            column = self._columns.pop(name)
            column.close()
            for adapter, _ in column.adapters:
                adapter.close()
            del self._about[name]

    def _error(self, identity: Id, error: IrmLiteError, column: Name | None = None) -> None:
        text = " ".join(str(error).split())
        self._emit({"kind": "error", "id": identity, **({"column": column} if column else {}), "text": text})


def _steering(column: Column) -> Event:
    """The strength and layers of a steered column's next token."""
    strength, layers = column.steering
    if column.layers:
        return {"strength": strength, "layers": format_layers(layers)}
    return {"strength": strength} if column.steered else {}
