"""Which chat template a base has: a folder or a file may hold several by name, or none."""

from typing import Any

from irm_lite.core.errors import BaseModelError
from irm_lite.core.files.gguf_header import GgufHeader

_KEY = "tokenizer.chat_template"


def gguf_templates(header: GgufHeader) -> dict[str, Any]:
    """A GGUF's chat templates by name; the one without a name is the default."""
    named = {key.removeprefix(f"{_KEY}."): value for key, value in header.metadata.items() if key.startswith(f"{_KEY}.")}
    return {**named, **({"default": header.metadata[_KEY]} if _KEY in header.metadata else {})}


def no_template(name: str, named: Any) -> BaseModelError:
    """The error for a base without a chat template that could be taken; `named`: those that it has."""
    names = ", ".join(map(str, named))[:200] if isinstance(named, dict) else ""
    has = f"only the chat templates {names}, and no default" if names else "no chat template"
    return BaseModelError(f"{name} has {has}", "give one with --chat-template, a file or a preset's name (llama-2-7b-chat)")
