"""One model in llama.cpp: control vectors at a scale and layer range, logits, streamed text."""

import codecs
import ctypes
import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from irm_lite.control_vector import ControlVector
from irm_lite.dataset import Message
from irm_lite.errors import BaseModelError, InputError, LlamaCppError
from irm_lite.fingerprint import fingerprint_gguf
from irm_lite.gguf_header import read_header
from irm_lite.types import FloatArray


class Runtime:
    """A GGUF model loaded in llama.cpp. Close it, or use it as a context manager."""

    def __init__(
        self,
        gguf: Path | str,
        *,
        n_ctx: int = 4096,
        n_gpu_layers: int = -1,
        n_threads: int | None = None,
        all_logits: bool = False,
        chat_template: str | None = None,
    ) -> None:
        """Load the model. `all_logits` keeps the logits of every token (n_ctx * V floats), which `logits` needs.

        Raises BaseModelError or InputError where the file is damaged, split, or no model.
        """
        import llama_cpp

        if not 8 <= n_ctx <= 1 << 24:
            raise InputError(f"a context of {n_ctx} tokens makes no sense", "give --context between 8 and 16777216")
        header = read_header(gguf)
        self.path = Path(gguf)
        self.fingerprint = fingerprint_gguf(header)
        self._template = chat_template or header.metadata.get("tokenizer.chat_template")
        trained_context = header.integer(f"{header.architecture}.context_length", n_ctx)
        try:
            self._llama = llama_cpp.Llama(
                str(gguf),
                n_ctx=min(n_ctx, trained_context),
                n_gpu_layers=n_gpu_layers,
                n_threads=n_threads,
                logits_all=all_logits,
                verbose=False,
            )
        except ValueError as error:
            raise BaseModelError(f"llama.cpp cannot load {gguf} ({error})", "check that it is a model it supports") from None

    def __enter__(self) -> "Runtime":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the model's memory."""
        self._llama.close()

    @property
    def n_layers(self) -> int:
        return self.fingerprint.n_layers

    @property
    def n_ctx(self) -> int:
        return int(self._llama.n_ctx())

    def set_vector(self, vector: ControlVector | None, scale: float = 1.0, layers: Iterable[int] | None = None) -> str | None:
        """Steer all that follows with `scale` times the vector, at these blocks only if given; None: not at all.

        Everything computed before is forgotten: a cache made at another strength is never reused. Raises VectorError
        where the vector does not fit. Returns a warning where it fits but was made on other weights.
        """
        import llama_cpp

        rows = np.zeros((self.n_layers, self.fingerprint.hidden_size), dtype=np.float32)
        warning = None
        if vector is not None:
            warning = vector.require_fit(self.fingerprint, self.path.name)
            chosen = vector if layers is None else vector.select(layers)
            rows = chosen.as_array(self.n_layers) * np.float32(scale)
        # Row 0 is left out: the buffer starts at block 1. It is always sent whole, since what a shorter one does not
        # reach would keep the vector before it.
        buffer = np.ascontiguousarray(rows[1:])
        pointer = buffer.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        context = self._llama.ctx
        if llama_cpp.llama_set_adapter_cvec(context, pointer, buffer.size, rows.shape[1], 1, self.n_layers - 1) != 0:
            raise LlamaCppError("llama.cpp refused the control vector")
        self._llama.reset()
        return warning

    def logits(self, ids: Sequence[int]) -> FloatArray:
        """Logits (T, V), float32, after each of the T tokens. Raises InputError where they exceed the context."""
        if len(ids) > self.n_ctx:
            raise InputError(f"{len(ids)} tokens do not fit into the context of {self.n_ctx}", "use shorter samples")
        self._llama.reset()
        self._llama.eval(list(ids))
        return np.array(self._llama.scores[: len(ids)], dtype=np.float32)

    def tokenize(self, text: str) -> list[int]:
        """Token ids of text in which special tokens are written out, as chat templates do; nothing is added."""
        return list(self._llama.tokenize(text.encode(), add_bos=False, special=True))

    def encode_prompt(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of the conversation up to where the assistant is to speak, by the GGUF's own chat template."""
        from llama_cpp.llama_chat_format import Jinja2ChatFormatter

        if not self._template:
            raise BaseModelError(f"{self.path} has no chat template", "give one with --chat-template FILE")
        bos, eos = (self._piece(token) for token in (self._llama.token_bos(), self._llama.token_eos()))
        try:
            prompt = Jinja2ChatFormatter(str(self._template), eos_token=eos, bos_token=bos)(messages=list(messages)).prompt
        except Exception as error:  # Jinja's, and whatever a template raises
            reason = " ".join(str(error).split())[:160] or type(error).__name__
            raise InputError(f"the chat template fails here ({reason})", "give another with --chat-template") from None
        return self.tokenize(prompt)

    def generate(
        self, messages: Sequence[Message], *, max_new_tokens: int = 128, temperature: float = 0.0, seed: int = 0
    ) -> Iterator[str]:
        """Stream the assistant's next turn in pieces of text. Temperature 0 is greedy decoding."""
        import llama_cpp

        prompt = self.encode_prompt(messages)
        if max_new_tokens < 1 or not 0 <= temperature < math.inf or not 0 <= seed < 2**32:
            raise InputError(
                f"max_new_tokens {max_new_tokens}, temperature {temperature} or seed {seed} is out of range",
                "give at least 1 token, a temperature of 0 or more, a seed from 0 to 4294967295",
            )
        room = self.n_ctx - len(prompt)
        if room < 1:
            raise InputError(
                f"the prompt of {len(prompt)} tokens fills the context of {self.n_ctx}", "shorten it or raise --context"
            )
        # Not create_completion: it forgets max_tokens while the bytes so far are no whole character.
        vocabulary = llama_cpp.llama_model_get_vocab(self._llama.model)
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._llama.reset()
        self._llama.set_seed(seed)
        tokens = self._llama.generate(prompt, temp=temperature, repeat_penalty=1.0)
        for token in islice(tokens, min(max_new_tokens, room)):
            if llama_cpp.llama_vocab_is_eog(vocabulary, token):
                break
            if text := decoder.decode(self._llama.detokenize([token])):
                yield text
        if text := decoder.decode(b"", final=True):
            yield text

    def _piece(self, token: int) -> str:
        """A special token's text."""
        return "" if token < 0 else self._llama.detokenize([token], special=True).decode(errors="replace")
