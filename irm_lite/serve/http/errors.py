"""Errors as OpenAI's clients know them: a status, a code, and the parameter that is meant."""

from typing import Any

from irm_lite.core.errors import BaseModelError, DataError, IrmLiteError, LayerError, LlamaCppError
from irm_lite.core.visible_text import one_line

_KINDS = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}
_LONGEST = 600


class ApiError(Exception):
    """What a client is told. `code` is for programs, the message for people."""

    def __init__(self, status: int, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status, self.code = status, code
        self.param = None if param is None else one_line(param)
        self.message = one_line(message)[:_LONGEST]

    def document(self) -> dict[str, Any]:
        """OpenAI's form of it."""
        kind = _KINDS.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    @property
    def headers(self) -> dict[str, str]:
        """What goes with the status."""
        if self.status == 401:
            return {"WWW-Authenticate": "Bearer"}
        return {"Retry-After": "1"} if self.status in (429, 503) else {}


def told(error: IrmLiteError, code: str, param: str | None = None) -> ApiError:
    """One of the engine's errors as a client is told it: bad input, unless llama.cpp itself failed."""
    if isinstance(error, LlamaCppError):
        return ApiError(500, "engine_failed", str(error))
    if isinstance(error, LayerError):
        code = "layers_out_of_range"
    return ApiError(400, code, str(error), param)


def of_prompt(error: IrmLiteError) -> ApiError:
    """Why no prompt can be made of the messages; the hints are about files and flags, which a client does not have."""
    if isinstance(error, DataError):
        refused = "refuses this conversation" in error.what
        return ApiError(400, "template_refused" if refused else "invalid_messages", error.what, "messages")
    return ApiError(400, "no_chat_template" if isinstance(error, BaseModelError) else "template_failed", error.what, "messages")
