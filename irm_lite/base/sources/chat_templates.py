"""Which chat template a base has: a folder or a file may hold several by name, or none."""

from typing import Any

from irm_lite.base.presets import presets
from irm_lite.core.errors import BaseModelError
from irm_lite.core.files.gguf_header import GgufHeader

_KEY = "tokenizer.chat_template"


def gguf_templates(header: GgufHeader) -> dict[str, Any]:
    """A GGUF's chat templates by name; the one without a name is the default."""
    named = {key.removeprefix(f"{_KEY}."): value for key, value in header.metadata.items() if key.startswith(f"{_KEY}.")}
    return {**named, **({"default": header.metadata[_KEY]} if _KEY in header.metadata else {})}


def no_template(name: str, named: Any, header: GgufHeader | None = None) -> BaseModelError:
    """The error for a base without a chat template that could be taken; `named`: those that it has. The preset that it names is
    one of the file's shape, where there is one."""
    names = ", ".join(map(str, named))[:200] if isinstance(named, dict) else ""
    has = f"only the chat templates {names}, and no default" if names else "no chat template"
    return BaseModelError(f"{name} has {has}", f"give one with --chat-template, a file or a preset's name ({_fitting(header)})")


def _fitting(header: GgufHeader | None) -> str:
    """A preset that brings a template: the one of the file's shape, else Llama 2's."""
    keys = ("block_count", "embedding_length")
    shape = header and tuple(header.metadata.get(f"{header.architecture}.{key}") for key in keys)
    fitting = (each.name for each in presets().values() if each.chat_template and (each.layers, each.hidden_size) == shape)
    return next(fitting, "llama-2-7b-chat")
