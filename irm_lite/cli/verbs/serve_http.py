"""irm-lite serve --http"""

import os
import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from irm_lite.cli.output import Output
from irm_lite.core.errors import InputError, MissingPart

if TYPE_CHECKING:
    from irm_lite.serve.http.settings import Settings
    from irm_lite.serve.http.shelf import Shelf

_KEY = "IRM_LITE_API_KEY"
_NAMED = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]{0,63})=(.+)", re.ASCII | re.DOTALL)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class HttpFlags:
    """OpenAI's API on a port."""

    http: Annotated[bool, Parameter(negative="")] = False
    """Serve OpenAI's API over HTTP."""
    host: str = "127.0.0.1"
    """The address to listen at; any but this machine's own needs a key."""
    port: int = 8080
    """The port; 0: a free one, which the line on standard output names."""
    model_name: str | None = None
    """What clients call the model; else the preset's or the file's name."""
    vectors_folder: Path | None = None
    """The folder that clients may load control vectors and adapters from, and no other."""
    api_key_file: Path | None = None
    """A file with the key that clients must send (or the environment's IRM_LITE_API_KEY)."""
    allow_origin: Annotated[list[str] | None, Parameter(negative="")] = None
    """A web page's origin, as in http://localhost:3000, that may ask from a browser; may be given several times."""
    contexts: int = 4
    """Answers that are written at the same time; each takes memory for its context."""
    max_tokens: int = 1024
    """Tokens of an answer, at most; what is asked for beyond is cut."""
    max_waiting: int = 64
    """Requests that may wait for a context; more are refused."""
    max_seconds: float = 600.0
    """From a request to the end of its answer."""
    max_body: int = 1 << 20
    """Bytes of a request."""
    cache_prompt: Annotated[bool, Parameter(negative="")] = False
    """Reuse a prompt's cache token by token, as llama-server does, not only where it is exactly a fresh start's."""
    log_prompts: Annotated[bool, Parameter(negative="")] = False
    """Write prompts and answers to the log too."""

    def given(self) -> str:
        """The first flag that is not as it is by itself."""
        other = next(each.name for each in fields(self) if getattr(self, each.name) != each.default)
        return f"--{other.replace('_', '-')}"


def serve_over_http(
    web: HttpFlags, gguf: str, steering: dict[str, list[str]], context: int, chat_template: str | None, output: Output
) -> None:
    """Serve until the process is asked to end. `steering`: NAME=PATH by vector, irm and adapter. Raises InputError before anything
    slow is done, where it can be known."""
    from irm_lite.base.presets import find_gguf, presets, read_chat_template

    model_file = find_gguf(gguf)
    settings = _settings(web, web.model_name or (gguf if gguf in presets() else model_file.stem), context, output.quiet)
    try:
        from irm_lite.serve.http import run
    except ModuleNotFoundError as error:
        raise MissingPart(f"--http needs {error.name}", "pip install 'irm-lite[serve]'") from None
    from irm_lite.llamacpp import Model
    from irm_lite.serve.http.shelf import Shelf

    template = read_chat_template(chat_template) if chat_template else None
    with run.bind(settings) as listening:
        output.note(f"loading {model_file}")
        with Model(model_file, chat_template=template) as model:
            shelf = Shelf(model, web.vectors_folder)
            _fill(shelf, steering, output)
            url = run.url_of(listening)

            def ready() -> None:
                about = {"url": f"{url}/v1", "model": settings.name, "steering": shelf.names, "context": context}
                output.result(about, f"serving {settings.name} at {url}/v1 (steering: {', '.join(shelf.names) or 'none'})")

            run.serve_http(model, shelf, settings, listening, ready)


def _fill(shelf: "Shelf", steering: dict[str, list[str]], output: Output) -> None:
    adding = {"vector": shelf.add_vector, "adapter": shelf.add_adapter, "irm": shelf.add_irm}
    for kind, add in adding.items():
        for argument in steering[kind]:
            name, path = named(argument)
            if name in shelf.names:
                raise InputError(f"two sources are called {name!r}", f"name one: --{kind} OTHER={path}")
            if kind == "irm":  # torch is
                output.note(f"loading {path}")
            output.tell_matches([add(name, path).match])


def named(argument: str) -> tuple[str, str]:
    """NAME=PATH, or a path, whose file's name it then is."""
    from irm_lite.steering.control_vector import parse_vector_argument

    match = _NAMED.fullmatch(argument)
    if match and not Path(argument).exists():
        return match[1], match[2]
    return parse_vector_argument(argument)[0].name.removesuffix(".gguf"), argument


def _settings(web: HttpFlags, name: str, context: int, quiet: bool) -> "Settings":
    from irm_lite.serve.http.settings import Limits, Settings

    numbers = {"contexts": 1, "max_tokens": 1, "max_waiting": 0, "max_seconds": 1, "max_body": 1}
    for field, least in numbers.items():
        if not least <= getattr(web, field) <= 1 << 30:
            raise InputError(f"--{field.replace('_', '-')} {getattr(web, field)} makes no sense", f"give {least} or more")
    if not 0 <= web.port <= 65535:
        raise InputError(f"there is no port {web.port}", "give --port from 0 to 65535")
    if not name or re.search(r"[\s:@+]", name):
        raise InputError(
            f"{name!r} cannot be a model's name: blanks, ':', '@' and '+' mean something", "give another with --model-name"
        )
    limits = Limits(web.max_body, tokens=web.max_tokens, waiting=web.max_waiting, seconds=web.max_seconds)
    return Settings(
        name,
        web.host,
        web.port,
        web.contexts,
        context,
        _key(web.api_key_file),
        tuple(web.allow_origin or ()),
        web.cache_prompt,
        web.log_prompts,
        quiet,
        limits=limits,
    )


def _key(file: Path | None) -> str | None:
    """The key, of at least 8 characters. Raises InputError."""
    from irm_lite.core.files.reading import read_text

    key = os.environ.get(_KEY)
    if file is not None:
        try:
            key = read_text(file)
        except (OSError, ValueError) as error:
            raise InputError(f"the key in {file} cannot be read ({error})", "write it into a file of its own") from None
    if key is None:
        return None
    key = key.strip()
    if len(key) < 8 or not key.isascii() or not key.isprintable() or " " in key:
        raise InputError("the key is not 8 or more letters, digits and signs on one line", "make one with: openssl rand -hex 16")
    return key
