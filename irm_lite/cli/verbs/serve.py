"""irm-lite serve"""

import queue
import sys
from threading import Thread
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

from cyclopts import Parameter

from irm_lite.cli.output import Common, as_json
from irm_lite.core.errors import IrmLiteError

if TYPE_CHECKING:
    from irm_lite.serve.server import Inbox


def serve(
    *,
    gguf: str = "demo",
    vector: Annotated[list[str] | None, Parameter(negative="")] = None,
    irm: str | None = None,
    adapter: Annotated[list[str] | None, Parameter(negative="")] = None,
    context: int = 4096,
    chat_template: str | None = None,
    common: Common | None = None,
) -> None:
    """Answer other programs: requests as JSON lines on standard input, events as JSON lines on standard output.

    The protocol is in docs/serve.md.

    Parameters
    ----------
    gguf
        The model file, or the name of a preset whose package carries one.
    vector
        A control vector as PATH or PATH:SCALE; may be given several times, they add up.
    irm
        A run whose IRM works inside llama.cpp.
    adapter
        A LoRA adapter as PATH or PATH:SCALE; several work together.
    context
        Tokens of context of each column.
    chat_template
        For a GGUF that has none: a file with a Jinja chat template, or a preset's name.
    """
    try:
        sources = {"vector": tuple(vector or ()), "adapter": tuple(adapter or ())}
        _serve(gguf, sources, irm, context, chat_template)
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
