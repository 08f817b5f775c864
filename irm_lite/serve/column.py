"""One column: a llama.cpp context, what steers it, and the answer that it is writing."""

import codecs
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from irm_lite.core.errors import InputError
from irm_lite.core.types import FloatArray
from irm_lite.llamacpp import Runtime
from irm_lite.llamacpp.adapters import Scaled
from irm_lite.serve.request import Chat, Name
from irm_lite.steering.control_vector import ControlVector
from irm_lite.steering.layers import format_layers, parse_layers

HalfArray = np.ndarray[Any, np.dtype[np.float16]]
_KEPT_BYTES = 1 << 28  # of the IRM's outputs for one answer; of a longer one the newest tokens' are kept
_HALF_MAX = 65504.0


@dataclass(frozen=True)
class Token:
    """One token of an answer. `norm`: L2 over layers and indices of what was added where it was predicted, or None."""

    number: int
    text: str
    norm: float | None


@dataclass(frozen=True)
class End:
    """Why an answer ended."""

    reason: Literal["turn", "length", "context", "stopped"]


@dataclass(frozen=True)
class Steered:
    """What steered one token: unscaled outputs (L, H) at these L layers, and the strength that they were added with."""

    outputs: HalfArray
    layers: tuple[int, ...]
    strength: float


class Column:
    """Writes one answer at a time, token by token. Close it before the model."""

    def __init__(self, name: Name, runtime: Runtime, vector: ControlVector | None = None, adapters: Sequence[Scaled] = ()) -> None:
        self.name = name
        self.text = ""
        self.written: list[int] = []
        self._runtime = runtime
        self._vector = vector
        self._adapters = adapters
        self._chat: Chat | None = None
        self._prompt: list[int] = []
        self._strength = 1.0
        self._layers: tuple[int, ...] = ()
        self._tokens: Iterator[int] | None = None
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._seen: dict[int, FloatArray] = {}  # the IRM's output by layer at the newest position
        self._kept: dict[int, Steered] = {}
        if runtime.dynamic is not None:
            runtime.dynamic.observers.append(self._see)

    def close(self) -> None:
        """Free the context."""
        self._tokens = None
        if self._adapters:
            self._runtime.set_adapters([])
        self._runtime.close()
        for adapter, _ in self._adapters:
            adapter.close()

    @property
    def n_ctx(self) -> int:
        """Tokens of context."""
        return self._runtime.n_ctx

    @property
    def layers(self) -> tuple[int, ...]:
        """Those where it can be steered; none for the base, nor for adapters, which are whole."""
        if self._runtime.dynamic is not None:
            return self._runtime.dynamic.irm.layers
        return self._vector.layers if self._vector is not None else ()

    @property
    def steered(self) -> bool:
        """Whether a strength means anything to it."""
        return bool(self.layers or self._adapters)

    def choose(self, layers: str) -> tuple[int, ...]:
        """Those of its layers that the specification names. Raises InputError where it is malformed or names none of them."""
        named = set(parse_layers(layers, self._runtime.model.n_layers))
        chosen = tuple(layer for layer in self.layers if layer in named)
        if self.layers and not chosen:
            raise InputError(f"layers {layers!r} name none of the {self.name}'s", f"it has {format_layers(self.layers)}")
        return chosen

    def begin(self, chat: Chat) -> int:
        """Forget the last answer and get ready to write another; gives the prompt's tokens. Raises InputError."""
        layers = self.choose(chat.layers)
        prompt = self._runtime.encode_prompt(chat.messages[self.name])
        if len(prompt) >= self._runtime.n_ctx:
            what = f"the prompt of {len(prompt)} tokens fills the context of {self._runtime.n_ctx}"
            raise InputError(what, "start a new conversation, or serve with a larger --context")
        self._chat, self._prompt, self.written, self.text = chat, prompt, [], ""
        self._decoder.reset()
        self._kept.clear()
        self._strength, self._layers, self._tokens = chat.strength, layers, None
        return len(prompt)

    def steer(self, strength: float, layers: tuple[int, ...]) -> None:
        """From the next token on. The cache was computed otherwise, so the prompt and what was written go through again."""
        if self.steered and (strength, layers) != (self._strength, self._layers):
            self._strength, self._layers, self._tokens = strength, layers, None

    @property
    def steering(self) -> tuple[float, tuple[int, ...]]:
        """The strength and the layers of the next token."""
        return self._strength, self._layers

    def step(self) -> Token | End:
        """The next token, or the end. Raises LlamaCppError."""
        assert self._chat is not None
        if len(self.written) == self._chat.max_new_tokens:
            return self._end("length")
        if len(self._prompt) + len(self.written) >= self._runtime.n_ctx:
            return self._end("context")
        if self._tokens is None:
            self._tokens = self._from_here(self._chat)
        token = next(self._tokens)
        if self._runtime.model.ends_turn(token):
            return self._end("turn")
        number = len(self.written)
        self.written.append(token)
        text = self._decoder.decode(self._runtime.model.piece(token))
        self.text += text
        return Token(number, text, self._keep(number))

    def stop(self) -> End:
        """End the answer here."""
        return self._end("stopped")

    def added_at(self, token: int) -> Steered:
        """What steered this token of the answer. Raises InputError where that is not known."""
        if token not in self._kept:
            raise InputError(f"the {self.name}'s outputs at token {token} are not kept", "ask for a token of the latest answer")
        return self._kept[token]

    def _end(self, reason: Literal["turn", "length", "context", "stopped"]) -> End:
        self.text += self._decoder.decode(b"", final=True)
        self._tokens = None
        return End(reason)

    def _from_here(self, chat: Chat) -> Iterator[int]:
        """What follows the prompt and what was written, with the steering and the sampler set anew."""
        if self._runtime.dynamic is not None:
            self._runtime.dynamic.strength, self._runtime.dynamic.layers = self._strength, self._layers
        elif self._vector is not None:
            self._runtime.set_vector(self._vector, self._strength, self._layers)
            self._seen = {layer: self._vector.directions[layer] for layer in self._layers}
        elif self._adapters:
            self._runtime.set_adapters([(adapter, scale * self._strength) for adapter, scale in self._adapters])
        left = chat.max_new_tokens - len(self.written)
        ids = [*self._prompt, *self.written]
        return self._runtime.generate_tokens(ids, max_new_tokens=left, temperature=chat.temperature, seed=chat.seed)

    def _see(self, layer: int, output: Any) -> None:
        self._seen[layer] = output[-1].numpy()  # (T, H): the newest token's

    def _keep(self, number: int) -> float | None:
        """Keep what steered this token; gives its norm."""
        if not self.layers:
            return None
        outputs = np.stack([self._seen[layer] for layer in self._layers])
        before = self._kept.get(number - 1)
        if before is not None and self._vector is not None and (before.strength, before.layers) == self.steering:
            steered = before  # the same for every token
        else:
            half = np.clip(np.nan_to_num(outputs), -_HALF_MAX, _HALF_MAX).astype(np.float16)
            steered = Steered(half, self._layers, self._strength)
        self._kept[number] = steered
        with suppress(KeyError):
            del self._kept[number - _KEPT_BYTES // steered.outputs.nbytes]
        norm = abs(self._strength) * float(np.linalg.norm(outputs.astype(np.float64)))
        return norm if np.isfinite(norm) else None
