"""Answers as OpenAI's API has them."""

from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from irm_lite.serve.http.job import Ended, Piece
from irm_lite.serve.http.sources import Steering


@dataclass
class Form:
    """How one request's answer is written down. `chat`: as a conversation's turn, else as plain text."""

    chat: bool
    model: str
    steering: Steering
    prompt_tokens: int
    fingerprint: str
    created: int
    norms: bool
    outputs: bool
    id: str = field(default_factory=lambda: uuid4().hex)

    def whole(self, text: str, tokens: list[dict[str, Any]], end: Ended, usage: dict[str, Any]) -> dict[str, Any]:
        """All of it at once."""
        said: dict[str, Any] = {"message": {"role": "assistant", "content": text, "refusal": None}} if self.chat else {"text": text}
        choice = {"index": 0, **said, "logprobs": None, "finish_reason": end.reason, **({"tokens": tokens} if self.norms else {})}
        self._add_outputs(choice, end.outputs)
        kind = "chat.completion" if self.chat else "text_completion"
        return {**self._head(kind), "choices": [choice], "usage": usage, "steering": list(self.steering.shown)}

    def first(self) -> dict[str, Any]:
        """The chunk that opens a streamed conversation's turn; it says what steers."""
        return {**self._chunk({"role": "assistant", "content": ""}, None), "steering": list(self.steering.shown)}

    def piece(self, piece: Piece) -> dict[str, Any]:
        """A chunk of text."""
        chunk = self._chunk({"content": piece.text} if self.chat else piece.text, None)
        if self.norms:
            chunk["choices"][0]["tokens"] = list(piece.tokens)
        if piece.outputs is not None:
            self._add_outputs(chunk["choices"][0], piece.outputs)
        return chunk

    def last(self, end: Ended) -> dict[str, Any]:
        """The chunk that closes it."""
        chunk = self._chunk({} if self.chat else "", end.reason)
        self._add_outputs(chunk["choices"][0], end.outputs)
        return chunk

    def usage_chunk(self, usage: dict[str, Any]) -> dict[str, Any]:
        """The chunk of stream_options.include_usage."""
        return {**self._head("chat.completion.chunk" if self.chat else "text_completion"), "choices": [], "usage": usage}

    def usage(self, written: int, reused: int) -> dict[str, Any]:
        """Tokens counted."""
        total = self.prompt_tokens + written
        counted = {"prompt_tokens": self.prompt_tokens, "completion_tokens": written, "total_tokens": total}
        return {**counted, "prompt_tokens_details": {"cached_tokens": reused}}

    def _add_outputs(self, choice: dict[str, Any], outputs: dict[str, Any] | None) -> None:
        if self.outputs:
            choice["outputs"] = outputs

    def _chunk(self, said: dict[str, Any] | str, finish: str | None) -> dict[str, Any]:
        what = {"delta": said} if self.chat else {"text": said}
        choice = {"index": 0, **what, "logprobs": None, "finish_reason": finish}
        return {**self._head("chat.completion.chunk" if self.chat else "text_completion"), "choices": [choice]}

    def _head(self, kind: str) -> dict[str, Any]:
        prefix = "chatcmpl" if self.chat else "cmpl"
        about = {"id": f"{prefix}-{self.id}", "object": kind, "created": self.created, "model": self.model}
        return {**about, "system_fingerprint": self.fingerprint}


def model_document(identity: str, created: int) -> dict[str, Any]:
    """One model of /v1/models."""
    return {"id": identity, "object": "model", "created": created, "owned_by": "irm-lite"}
