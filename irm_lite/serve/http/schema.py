"""What clients send, as OpenAI's API has it, with our own fields beside: steering, norms, outputs, cache_prompt,
repeat_penalty.

Fields that are not named here are passed over, as OpenAI's servers do with what a client sends of its own; fields that would change
the answer and that nothing here can do are refused by name.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from irm_lite.serve.http.errors import ApiError

MOST_STEERINGS = 32
_Text = Annotated[str, Field(max_length=256)]
_STRICT = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)
_OURS = ConfigDict(strict=True, extra="forbid")  # what is misspelled in our own fields is not passed over


class Item(BaseModel):
    """One thing that steers, by the name that it was loaded under. The scale's limits are steering.py's."""

    model_config = _OURS

    name: _Text
    scale: float = 1.0
    layers: _Text | None = None


Items = Annotated[list[Item], Field(max_length=MOST_STEERINGS)]


class StreamOptions(BaseModel):
    """OpenAI's."""

    model_config = _STRICT

    include_usage: bool | None = None


class Asked(BaseModel):
    """What chat and plain completions have in common."""

    model_config = _STRICT

    model: _Text | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=100)
    top_p: float | None = Field(None, gt=0, le=1)
    repeat_penalty: float | None = Field(None, gt=0, le=100)
    seed: int | None = Field(None, ge=0, lt=2**32)
    stop: str | list[str] | None = None
    user: _Text | None = None
    steering: Items | None = None
    norms: bool = False
    outputs: bool = False
    cache_prompt: bool | None = None
    n: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: dict[str, float] | None = None

    @property
    def stops(self) -> tuple[str, ...]:
        """The texts that end the answer. Raises ApiError where there are too many, or empty ones."""
        given = [self.stop] if isinstance(self.stop, str) else self.stop or []
        if len(given) > 16 or not all(0 < len(each) <= 256 for each in given):
            raise ApiError(400, "invalid_parameter", "stop takes up to 16 texts of 1 to 256 characters", "stop")
        return tuple(given)


class ChatAsked(Asked):
    """POST /v1/chat/completions"""

    messages: Annotated[list[dict[str, Any]], Field(min_length=1, max_length=4096)]
    max_completion_tokens: int | None = Field(None, ge=1)
    logprobs: bool | None = None
    tools: list[Any] | None = None
    tool_choice: Any = None
    functions: list[Any] | None = None
    response_format: dict[str, Any] | None = None


class CompletionAsked(Asked):
    """POST /v1/completions"""

    prompt: str | list[str] | list[int]
    logprobs: int | None = None
    echo: bool | None = None
    suffix: str | None = None
    best_of: int | None = None


class Defaults(BaseModel):
    """POST /v1/steering"""

    model_config = _OURS

    steering: Items


class Loaded(BaseModel):
    """POST /v1/steering/load: a file of the folder; the name is the file's unless it is given, and the kind what the file says."""

    model_config = _OURS

    file: _Text
    name: _Text | None = None
    kind: Literal["vector", "adapter"] | None = None


class Unloaded(BaseModel):
    """POST /v1/steering/unload"""

    model_config = _OURS

    name: _Text


_ONLY: dict[str, tuple[Any, ...]] = {  # what clients send without meaning it
    "n": (None, 1),
    "best_of": (None, 1),
    "presence_penalty": (None, 0),
    "frequency_penalty": (None, 0),
    "logit_bias": (None, {}),
    "logprobs": (None, False),
    "tools": (None, []),
    "tool_choice": (None, "none", "auto"),
    "functions": (None, []),
    "response_format": (None, {"type": "text"}),
    "echo": (None, False),
    "suffix": (None, ""),
}


def refuse_unsupported(asked: Asked) -> None:
    """Raises ApiError for the first field that asks for what this server cannot do."""
    for name, allowed in _ONLY.items():
        given = getattr(asked, name, None)
        if not any(given == each and isinstance(given, bool) == isinstance(each, bool) for each in allowed):
            raise ApiError(400, "unsupported_parameter", f"{name} is not supported here: leave it out", name)
