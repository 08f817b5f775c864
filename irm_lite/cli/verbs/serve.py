"""irm-lite serve"""

import queue
import sys
from dataclasses import dataclass
from threading import Thread
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

from cyclopts import Parameter

from irm_lite.cli.output import Common, Output, as_json
from irm_lite.cli.verbs.serve_http import HttpFlags, serve_over_http
from irm_lite.core.errors import InputError, IrmLiteError

if TYPE_CHECKING:
    from irm_lite.serve.server import Inbox


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ServeFlags:
    """What answers."""

    gguf: str = "demo"
    """The model file, or the name of a preset whose package carries one."""
    vector: Annotated[list[str] | None, Parameter(negative="")] = None
    """A control vector as PATH or PATH:SCALE; several add up. With --http NAME=PATH: requests say which they want."""
    irm: Annotated[list[str] | None, Parameter(negative="")] = None
    """A run whose IRM works inside llama.cpp; with --http NAME=RUN, several times if need be."""
    adapter: Annotated[list[str] | None, Parameter(negative="")] = None
    """A LoRA adapter as PATH or PATH:SCALE; several work together. With --http NAME=PATH: requests say which they want."""
    context: int = 4096
    """Tokens of context of each column, or with --http of each answer."""
    chat_template: str | None = None
    """For a GGUF that has none: a file with a Jinja chat template, or a preset's name."""


def serve(*, flags: ServeFlags | None = None, web: HttpFlags | None = None, common: Common | None = None) -> None:
    """Answer other programs: JSON lines on standard input and output, or with --http OpenAI's API on a port.

    Both are described in docs/serve.md.
    """
    flags, web = flags or ServeFlags(), web or HttpFlags()
    if web.http:
        steering = {"vector": flags.vector or [], "irm": flags.irm or [], "adapter": flags.adapter or []}
        serve_over_http(web, flags.gguf, steering, flags.context, flags.chat_template, Output(common))
        return
    try:
        if web != HttpFlags():
            raise InputError(f"{web.given()} is of the HTTP server", "give --http too")
        if len(flags.irm or []) > 1:
            raise InputError("one --irm alone can be served as JSON lines", "give one, or --http")
        sources = {"vector": tuple(flags.vector or ()), "adapter": tuple(flags.adapter or ())}
        _serve(flags.gguf, sources, next(iter(flags.irm or []), None), flags.context, flags.chat_template)
    except IrmLiteError as error:
        _emit({"kind": "error", "id": None, "text": " ".join(str(error).split())})
        raise


def _serve(gguf: str, sources: dict[str, tuple[str, ...]], irm: str | None, context: int, chat_template: str | None) -> None:
    from irm_lite.base.presets import find_gguf

    model_file = find_gguf(gguf)
    _emit({"kind": "loading", "id": None, "what": str(model_file)})
    from irm_lite.base.presets import read_chat_template
    from irm_lite.llamacpp import Model
    from irm_lite.serve.server import Server

    template = read_chat_template(chat_template) if chat_template else None
    with Model(model_file, chat_template=template) as model, Server(model, _emit, context=context) as server:
        server.load_vector(sources["vector"])
        server.load_adapter(sources["adapter"])
        if irm is not None:
            _emit({"kind": "loading", "id": None, "what": irm})
        server.load_irm(irm)
        server.ready()
        inbox: Inbox = queue.Queue()
        Thread(target=_read, args=(sys.stdin.buffer, inbox), daemon=True).start()
        server.run(inbox)


def _emit(event: dict[str, Any]) -> None:
    sys.stdout.write(as_json(event) + "\n")
    sys.stdout.flush()


def _read(stream: BinaryIO, inbox: "Inbox") -> None:
    """Lines into the inbox; of one that is too long only so much that it is known to be."""
    from irm_lite.serve.request import LONGEST_LINE

    whole = True
    while line := stream.readline(LONGEST_LINE):
        if whole:
            inbox.put(line)
        whole = line.endswith(b"\n")
    inbox.put(None)
