"""llama.cpp's own tokenizer of a GGUF: what a text becomes in every program on llama.cpp.

transformers makes a tokenizer of its own from the same file and knows neither every pre-tokenizer nor `add_space_prefix`, so its
ids may be others. What is trained on a GGUF is trained on these.
"""

import ctypes
import os
from functools import cached_property
from pathlib import Path
from typing import Any
from weakref import finalize

from irm_lite.core.errors import BaseModelError
from irm_lite.core.machine.llamacpp_log import complaint, forget_complaints, quiet_llamacpp


class Vocabulary:
    """`handle`: llama.cpp's `llama_vocab *`, which lives as long as the model that it is of."""

    def __init__(self, handle: Any) -> None:
        import llama_cpp

        self._handle = handle
        self.size = int(llama_cpp.llama_vocab_n_tokens(handle))

    @property
    def adds_bos(self) -> bool:
        """Whether llama.cpp's programs begin every prompt with the token `bos`."""
        import llama_cpp

        return bool(llama_cpp.llama_vocab_get_add_bos(self._handle))

    @property
    def adds_eos(self) -> bool:
        """Whether llama.cpp's programs end every prompt with the token `eos`."""
        import llama_cpp

        return bool(llama_cpp.llama_vocab_get_add_eos(self._handle))

    @cached_property
    def eos_id(self) -> int | None:
        """The token that ends a text; None where there is none."""
        import llama_cpp

        token = int(llama_cpp.llama_vocab_eos(self._handle))
        return None if token < 0 else token

    @cached_property
    def bos(self) -> str:
        """The text of the token that begins a text; empty where there is none."""
        import llama_cpp

        return self._special(llama_cpp.llama_vocab_bos(self._handle))

    @cached_property
    def eos(self) -> str:
        """The text of the token that ends a text; empty where there is none."""
        import llama_cpp

        return self._special(llama_cpp.llama_vocab_eos(self._handle))

    @property
    def words(self) -> dict[str, str]:
        """The special tokens that llama.cpp gives to chat templates, by the name of their variable."""
        return {"bos_token": self.bos, "eos_token": self.eos}

    def _special(self, token: int) -> str:
        return "" if token < 0 else self.piece(token, special=True).decode(errors="replace")

    @cached_property
    def turn_ends(self) -> frozenset[int]:
        """Ids of all tokens at which llama.cpp ends a generation: the file's eos, eot and eom, and those it knows by their text."""
        return frozenset(filter(self.ends_turn, range(self.size)))

    def ends_turn(self, token: int) -> bool:
        """Whether llama.cpp ends a generation at this token."""
        import llama_cpp

        return bool(llama_cpp.llama_vocab_is_eog(self._handle, token))

    def tokenize(self, text: str, add_special: bool = False) -> list[int]:
        """Token ids of text in which special tokens are written out, as chat templates do; bos and eos as the file asks if
        `add_special`, else nothing is added."""
        import llama_cpp

        data = text.encode()
        room = len(data) + 8  # a token has at least one byte, but for those that are added
        ids = (llama_cpp.llama_token * room)()
        count = llama_cpp.llama_tokenize(self._handle, data, len(data), ids, room, add_special, True)
        if count < 0:
            raise BaseModelError(f"llama.cpp cannot tokenise a text of {len(data)} bytes")
        return list(ids[:count])

    def tokenize_prompt(self, rendered: str) -> list[int]:
        """Token ids of what a chat template has rendered, as llama-server makes them: the token `bos` stands at the beginning once
        where the file says that it is added, whether the template wrote it or not (common/chat.cpp strips it, and the
        tokenizer puts it back)."""
        import llama_cpp

        if not self.adds_bos or not self.bos:
            return self.tokenize(rendered)
        return [int(llama_cpp.llama_vocab_bos(self._handle)), *self.tokenize(rendered.removeprefix(self.bos))]

    def token_text(self, token: int) -> str:
        """A token as the file spells it, `▁` or `Ġ` for a blank."""
        import llama_cpp

        if not 0 <= token < self.size:
            return f"(no token {token})"
        return str((llama_cpp.llama_vocab_get_text(self._handle, token) or b"").decode(errors="replace"))

    def piece(self, token: int, special: bool = False) -> bytes:
        """A token's bytes, which may be part of a character; of special tokens none unless asked for."""
        import llama_cpp

        if not 0 <= token < self.size:  # llama.cpp would end the process
            raise ValueError(f"there is no token {token} in a vocabulary of {self.size}")
        room = 64
        while True:
            buffer = ctypes.create_string_buffer(room)
            count = llama_cpp.llama_token_to_piece(self._handle, token, buffer, room, 0, special)
            if count >= 0:
                return buffer.raw[:count]
            room = -count


class FileVocabulary(Vocabulary):
    """The vocabulary of a file alone, without its weights. It is freed with the object."""

    def __init__(self, gguf: Path) -> None:
        """Raises BaseModelError where llama.cpp cannot load it. The file must have passed `require_loadable`."""
        quiet_llamacpp()
        import llama_cpp

        forget_complaints()
        parameters = llama_cpp.llama_model_default_params()
        parameters.vocab_only = True
        model = llama_cpp.llama_model_load_from_file(os.fsencode(gguf), parameters)
        if not model:
            raise BaseModelError(f"llama.cpp cannot read the vocabulary of {gguf} ({complaint()})", "download or convert it again")
        finalize(self, llama_cpp.llama_model_free, model)
        super().__init__(llama_cpp.llama_model_get_vocab(model))
