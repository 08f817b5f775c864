"""A chat template (Jinja) and what it makes of a conversation: the text that llama-server gives a model, for training and for
llama.cpp alike, so that one template is judged once.

llama-server (common/chat.cpp) gives a template `messages`, `bos_token`, `eos_token`, `add_generation_prompt`, `enable_thinking`,
`date_string` and `datetime`, and puts a system text in front of the next turn where the template has no place for it.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache, cached_property, lru_cache
from typing import Any

import jinja2
import jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment

from irm_lite.core.errors import DataError, InputError, reason
from irm_lite.data.dataset import Message

_HINT = "fix it, or give another with --chat-template"
_NOW = "strftime_now"
_TIMES = (_NOW, "date_string", "datetime", "enable_thinking")  # of a source: what it renders depends on `at`
_SYSTEM, _USER = "Speak like one of the crew.", "Where were you yesterday?"
_ASKED: tuple[Message, ...] = ({"role": "user", "content": _USER},)
_WITH_SYSTEM: tuple[Message, ...] = ({"role": "system", "content": _SYSTEM}, *_ASKED)


@dataclass(frozen=True)
class ChatTemplate:
    """Jinja text with the texts of the special tokens, as pairs of a variable and its value.

    `at`: the local time that a template sees which asks for it; None: the present one, and of what llama-server gives beyond
    transformers nothing, as runs were rendered whose time was not kept.
    """

    source: str
    words: tuple[tuple[str, str], ...] = ()
    at: datetime | None = None

    @cached_property
    def fault(self) -> str | None:
        """What is wrong with the template itself, whatever the conversation; None where nothing is."""
        if any(self._shows(_USER, self._in_form(asked)) for asked in (_ASKED, _WITH_SYSTEM)):
            return None
        try:
            self._rendered(self._in_form(_ASKED), True).encode()  # half a character is none
        except Exception as error:  # Jinja's, and whatever a template raises
            return f"the chat template fails on any conversation ({_told(error)})"
        return "the chat template leaves out what the user says"

    @property
    def is_of_today(self) -> bool:
        """Whether what it renders depends on when it is rendered, for want of a time that was kept."""
        return self.at is None and _NOW in self.source

    @cached_property
    def in_parts(self) -> bool:
        """Whether it takes what is said only as a list of parts, as those of models that see pictures do."""
        return not self._shows(_USER, _ASKED) and self._shows(_USER, _parts(_ASKED))

    @cached_property
    def has_system(self) -> bool:
        """Whether it has a place for a system text; Gemma's refuses one, others pass over it."""
        return self._shows(_SYSTEM, self._in_form(_WITH_SYSTEM))

    def _shows(self, text: str, messages: Sequence[Mapping[str, Any]]) -> bool:
        """Whether a prompt can be made of the messages, with this text in it in whatever case."""
        try:
            return text.casefold() in self._rendered(messages, True).encode().decode().casefold()
        except Exception:  # whatever a template raises
            return False

    def _in_form(self, messages: Sequence[Message]) -> Sequence[Mapping[str, Any]]:
        return _parts(messages) if self.in_parts else messages

    def moves_system(self, messages: Sequence[Message]) -> bool:
        """Whether the system text of this conversation stands in front of the next turn, for want of another place."""
        return len(messages) > 1 and messages[0]["role"] == "system" and not self.has_system

    def prompt(self, messages: Sequence[Message], where: str = "the prompt") -> str:
        """The conversation up to where the assistant is to speak. Raises InputError where the template is at fault, DataError
        naming `where` where it refuses this conversation."""
        try:
            text = self._rendered(self._placed(messages), True)
        except Exception as error:  # whatever a template raises
            raise self.failed(error, where) from None
        if self.fault:
            raise InputError(self.fault, _HINT)
        return text

    def whole(self, messages: Sequence[Message]) -> str:
        """The conversation with all that was answered. Raises what Jinja and the template raise."""
        return self._rendered(self._placed(messages), False)

    def failed(self, error: Exception, where: str) -> InputError:
        """The error for whatever the template raised: of the template, or of the conversation at `where`."""
        if self.fault:
            return InputError(self.fault, _HINT)
        return DataError(
            f"{where}: the chat template refuses this conversation ({_told(error)})",
            "change it, or give another template with --chat-template",
        )

    def _placed(self, messages: Sequence[Message]) -> Sequence[Mapping[str, Any]]:
        if self.moves_system(messages):
            system, second, *others = messages
            messages = [{**second, "content": f"{system['content']}\n{second['content']}"}, *others]
        return self._in_form(messages)

    def _rendered(self, messages: Sequence[Mapping[str, Any]], add_generation_prompt: bool) -> str:
        variables: dict[str, Any] = {"messages": list(messages), "add_generation_prompt": add_generation_prompt}
        if self.at is not None:
            variables |= {"date_string": f"{self.at:%d %b %Y}", "datetime": f"{self.at:%b %d %Y}"}
            variables["enable_thinking"] = True
        strftime: Callable[[str], str] = (self.at or datetime.now()).strftime
        return _compiled(self.source).render({**dict(self.words), **variables, "strftime_now": strftime})


def known_template(source: str, words: Mapping[str, Any], at: datetime | None) -> ChatTemplate:
    """The template with those of the words that are texts; the same object where that changes nothing."""
    texts = tuple((name, value) for name, value in words.items() if isinstance(value, str))
    return _known(source, texts, at if any(word in source for word in _TIMES) else None)


_known = lru_cache(64)(ChatTemplate)


def chosen(named: Any) -> str | None:
    """Of several templates by name the one that a conversation without tools is rendered with, as llama.cpp takes it: the
    default, else that for tools. None where there is neither."""
    if isinstance(named, Mapping):
        named = named.get("default") or named.get("tool_use")
    return named if isinstance(named, str) and named else None


def _parts(messages: Sequence[Message]) -> list[dict[str, Any]]:
    return [{**each, "content": [{"type": "text", "text": each["content"]}]} for each in messages]


def _told(error: Exception) -> str:
    line = f", line {error.lineno}" if isinstance(error, jinja2.TemplateSyntaxError) else ""
    return reason(error, 160) + line


class _Generation(jinja2.ext.Extension):
    """`{% generation %}`: transformers marks with it what the assistant wrote; here what is inside stands for itself."""

    tags = {"generation"}  # noqa: RUF012  # Jinja's own way

    def parse(self, parser: Any) -> Any:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _raise(message: str) -> None:
    raise jinja2.TemplateError(message)


def _as_json(value: Any, ensure_ascii: bool = False, **options: Any) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, **options)


@cache
def _environment() -> ImmutableSandboxedEnvironment:
    extensions = [_Generation, jinja2.ext.loopcontrols]
    made = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=extensions)
    made.filters["tojson"] = _as_json  # Jinja's own would write HTML
    made.globals["raise_exception"] = _raise
    del made.filters["random"], made.globals["lipsum"]  # what a run renders is to be the same each time
    return made


@lru_cache(64)
def _compiled(source: str) -> jinja2.Template:
    return _environment().from_string(source)
