"""One column: a llama.cpp context, what steers it, and the answer that it is writing."""

import codecs
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from irm_lite.core.errors import InputError
from irm_lite.core.types import DoubleArray, FloatArray
from irm_lite.llamacpp import Runtime
from irm_lite.llamacpp.adapters import Scaled
from irm_lite.llamacpp.sampling import Sampling
from irm_lite.serve.request import Chat, Name
from irm_lite.steering.control_vector import ControlVector
from irm_lite.steering.layers import choose_layers

HalfArray = np.ndarray[Any, np.dtype[np.float16]]
_KEPT_BYTES = 1 << 28  # of the IRM's outputs for one answer; of a longer one the newest tokens' are kept
_HALF_MAX = 65504.0


class Work(NamedTuple):
    """What a cache is computed with: a vector at a strength and at these layers, adapters at their scales times the strength."""

    vector: ControlVector | None
    strength: float
    layers: tuple[int, ...]
    adapters: tuple[Scaled, ...] = ()

    def same(self, other: "Work | None") -> bool:
        """Whether both steer alike: by the very same vector and adapters."""
        return other is not None and other.vector is self.vector and other[1:] == self[1:]


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


@dataclass(frozen=True)
class Manner:
    """How an answer is to be written. `watched`: what steers each token is kept, and its norm given. `continued`: what the cache
    holds of an earlier answer is gone on from token by token, as llama-server's cache_prompt does it: faster, and in a near tie
    another text than a fresh start's, since other shapes of a product have other last bits."""

    sampling: Sampling
    max_new_tokens: int
    watched: bool = True
    continued: bool = False


class Column:
    """Writes one answer at a time, token by token. Close it before the model."""

    def __init__(self, name: Name, runtime: Runtime, vector: ControlVector | None = None, adapters: Sequence[Scaled] = ()) -> None:
        self.name = name
        self.text = ""
        self.written: list[int] = []
        self.reused = 0  # tokens of the prompt that were in the cache already
        self._runtime = runtime
        self._vector = vector
        self._adapters = tuple(adapters)
        self._manner: Manner | None = None
        self._prompt: list[int] = []
        self._strength = 1.0
        self._layers: tuple[int, ...] = ()
        self._tokens: Iterator[int | None] | None = None
        self._at_work: Work | None = None  # what the cache was computed with
        self._held: list[int] = []  # the cache's tokens
        self._vector_set = vector is not None  # whether a vector may be at work in the context
        self._adapters_set = False
        self._whole = 0  # so many of them came in micro-batches that a fresh start would have too
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._seen: dict[int, FloatArray] = {}  # the IRM's output by layer at the newest position
        self._kept: dict[int, Steered] = {}
        self._latest: Steered | None = None  # of the answer's newest token, by the present vector
        self._added: dict[int, DoubleArray] = {}  # the sum over the answer's watched tokens, by layer

    def close(self) -> None:
        """Free the context; its adapters are whose they were."""
        self._tokens = None
        self._runtime.close()

    @property
    def adapters(self) -> tuple[Scaled, ...]:
        """Those that work in it."""
        return self._adapters

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
        return choose_layers(layers, self._runtime.model.n_layers, self.layers, f"the {self.name}")

    def begin(self, chat: Chat) -> int:
        """Forget the last answer and get ready to write another; gives the prompt's tokens. Raises InputError."""
        layers = self.choose(chat.layers)
        prompt = self._runtime.encode_prompt(chat.messages[self.name])
        if len(prompt) >= self._runtime.n_ctx:
            what = f"the prompt of {len(prompt)} tokens fills the context of {self._runtime.n_ctx}"
            raise InputError(what, "start a new conversation, or serve with a larger --context")
        self.write(prompt, Manner(Sampling(chat.temperature, chat.seed), chat.max_new_tokens), chat.strength, layers)
        return len(prompt)

    def take(self, vector: ControlVector | None, adapters: tuple[Scaled, ...] = ()) -> None:
        """Another vector and other adapters, or none, from the next token on."""
        if vector is not self._vector or adapters != self._adapters:
            self._vector, self._adapters, self._tokens, self._latest = vector, adapters, None, None

    def held(self, prompt: Sequence[int], work: Work, continued: bool = False) -> int:
        """So many of the prompt's tokens need not be read again where they are steered so."""
        if not work.same(self._at_work):
            return 0
        common = next((at for at, (one, two) in enumerate(zip(self._held, prompt, strict=False)) if one != two), None)
        common = min(len(self._held), len(prompt)) if common is None else common
        common = min(common, len(prompt) - 1)  # the last one's logits are needed
        return common if continued else min(common, self._whole) // self._runtime.n_batch * self._runtime.n_batch

    def write(self, prompt: list[int], manner: Manner, strength: float, layers: tuple[int, ...]) -> None:
        """Forget the last answer and get ready to write what follows these tokens, fewer than the context has."""
        self._manner, self._prompt, self.written, self.text, self.reused = manner, prompt, [], "", 0
        self._decoder.reset()
        self._kept.clear()
        self._added.clear()
        self._latest = None
        self._strength, self._layers, self._tokens = strength, layers, None

    def steer(self, strength: float, layers: tuple[int, ...]) -> None:
        """From the next token on. The cache was computed otherwise, so the prompt and what was written go through again."""
        if (strength, layers) != (self._strength, self._layers) and (self.steered or layers != self._layers):
            self._strength, self._layers, self._tokens = strength, layers, None

    @property
    def steering(self) -> tuple[float, tuple[int, ...]]:
        """The strength and the layers of the next token."""
        return self._strength, self._layers

    def step(self) -> Token | End:
        """The next token, or the end. Raises LlamaCppError."""
        while (found := self.advance()) is None:
            pass
        return found

    def advance(self) -> Token | End | None:
        """The same, but None when a micro-batch of the prompt was read and others follow."""
        assert self._manner is not None
        if len(self.written) == self._manner.max_new_tokens:
            return self._end("length")
        if len(self._prompt) + len(self.written) >= self._runtime.n_ctx:
            return self._end("context")
        if self._tokens is None:
            self._tokens = self._from_here(self._manner)
        token = next(self._tokens)
        if token is None:
            return None
        if self._runtime.model.ends_turn(token):
            return self._end("turn")
        number = len(self.written)
        self.written.append(token)
        text = self._decoder.decode(self._runtime.model.piece(token))
        self.text += text
        return Token(number, text, self._keep(number) if self._manner.watched else None)

    def stop(self) -> End:
        """End the answer here."""
        return self._end("stopped")

    def added_at(self, token: int) -> Steered:
        """What steered this token of the answer. Raises InputError where that is not known."""
        if token not in self._kept:
            raise InputError(f"the {self.name}'s outputs at token {token} are not kept", "ask for a token of the latest answer")
        return self._kept[token]

    def mean_added(self) -> dict[int, DoubleArray]:
        """By layer, the mean of what was added (H,) over the answer's tokens, strength included; nothing where it was not seen."""
        return {layer: self._added[layer] / len(self.written) for layer in sorted(self._added)}

    def _end(self, reason: Literal["turn", "length", "context", "stopped"]) -> End:
        self.text += self._decoder.decode(b"", final=True)
        self._tokens = None
        return End(reason)

    def _from_here(self, manner: Manner) -> Iterator[int | None]:
        """What follows the prompt and what was written, with the steering and the sampler set anew."""
        left = manner.max_new_tokens - len(self.written)
        ids = [*self._prompt, *self.written]
        work = Work(self._vector, self._strength, self._layers, self._adapters)
        kept = self.held(ids, work, manner.continued)
        if not work.same(self._at_work):
            self._steer_runtime(work)
        if not self.written:
            self.reused = kept
        if self._runtime.dynamic is not None:
            self._runtime.dynamic.observers[:] = [self._see] if manner.watched else []
        elif self._vector is not None:
            self._seen = {layer: self._vector.directions[layer] for layer in self._layers}
        before, n_batch = min(self._whole, kept), self._runtime.n_batch
        self._held, self._whole = ids[:kept], before
        for token in self._runtime.generate_steps(ids, left, manner.sampling, kept):
            if token is not None and len(self._held) < len(ids):
                # What stands behind a prefix of odd length came in micro-batches of other borders than a fresh start's.
                self._held, self._whole = ids, len(ids) // n_batch * n_batch if before == kept else before
            elif token is not None:
                self._held.append(self.written[-1])
            yield token

    def _steer_runtime(self, work: Work) -> None:
        """Raises VectorError where the vector does not fit."""
        self._at_work, self._held, self._whole = None, [], 0
        vector, strength, layers, adapters = work
        if self._runtime.dynamic is not None:
            self._runtime.dynamic.strength, self._runtime.dynamic.layers = strength, layers
        elif vector is not None:
            self._vector_set = True
            self._runtime.set_vector(vector, strength, layers)
        elif self._vector_set:
            self._runtime.set_vector(None)
            self._vector_set = False
        if adapters or self._adapters_set:
            self._adapters_set = True
            self._runtime.set_adapters([(adapter, scale * strength) for adapter, scale in adapters])
            self._adapters_set = bool(adapters)
        self._at_work = work

    def _see(self, layer: int, output: Any) -> None:
        self._seen[layer] = output[-1].numpy()  # (T, H): the newest token's

    def _keep(self, number: int) -> float | None:
        """Keep what steered this token; gives its norm. What an adapter adds is nowhere seen."""
        if not self.layers or self._adapters:
            return None
        outputs = np.stack([self._seen[layer] for layer in self._layers])
        before = self._latest
        if before is not None and self._vector is not None and (before.strength, before.layers) == self.steering:
            steered = before  # the same for every token
        else:
            half = np.clip(np.nan_to_num(outputs), -_HALF_MAX, _HALF_MAX).astype(np.float16)
            steered = Steered(half, self._layers, self._strength)
        self._kept[number] = self._latest = steered
        with suppress(KeyError):
            del self._kept[number - _KEPT_BYTES // steered.outputs.nbytes]
        scaled = self._strength * outputs.astype(np.float64)
        for layer, row in zip(self._layers, scaled, strict=True):
            self._added[layer] = self._added.get(layer, 0.0) + row
        norm = float(np.linalg.norm(scaled))
        return norm if np.isfinite(norm) else None
