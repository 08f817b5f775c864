"""A GGUF model's weights and vocabulary in llama.cpp, shared by the contexts made from it."""

import codecs
import os
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from irm_lite.base.fingerprint import fingerprint_gguf
from irm_lite.base.sources.chat_templates import gguf_templates, no_template
from irm_lite.base.sources.gguf_checks import KNOWN, require_loadable
from irm_lite.base.vocabulary import Vocabulary
from irm_lite.core.errors import BaseModelError
from irm_lite.core.files.gguf_header import read_header
from irm_lite.core.machine.llamacpp_log import complaint, forget_complaints, quiet_llamacpp
from irm_lite.core.machine.ran_out import SMALLER_OR_WHOLE, ran_out, what_ran_out
from irm_lite.data.chat_template import ChatTemplate, chosen, known_template
from irm_lite.data.dataset import Message
from irm_lite.llamacpp import amx
from irm_lite.llamacpp.trial_load import require_survival


class Model:
    """One model file loaded. Close it, or use it as a context manager; contexts made from it must be closed before."""

    def __init__(self, gguf: Path | str, *, n_gpu_layers: int = -1, chat_template: str | None = None, repack: bool = True) -> None:
        """`repack`: let llama.cpp lay out 4-bit weights anew for the CPU, which takes a while and pays where it computes.

        Raises BaseModelError or InputError where the file is damaged, split, or no model that llama.cpp knows, RanOut where there
        is no memory for it."""
        quiet_llamacpp()
        import llama_cpp

        header = read_header(gguf)
        self.path = Path(gguf)
        self.fingerprint = fingerprint_gguf(header)
        require_loadable(header)
        if header.architecture not in KNOWN:
            require_survival(self.path)
        self.trained_context = header.integer(f"{header.architecture}.context_length", 1 << 24)
        self._templates = chat_template or gguf_templates(header)
        parameters = llama_cpp.llama_model_default_params()
        parameters.n_gpu_layers = n_gpu_layers if n_gpu_layers >= 0 else 0x7FFFFFFF
        parameters.use_extra_bufts = repack and not amx.is_broken()
        forget_complaints()
        self.handle: Any = llama_cpp.llama_model_load_from_file(os.fsencode(gguf), parameters)
        if not self.handle:
            if lacking := what_ran_out(complaint()):
                raise ran_out(lacking, f"loading {gguf} in llama.cpp", SMALLER_OR_WHOLE)
            raise BaseModelError(f"llama.cpp cannot load {gguf} ({complaint()})", "check that it is a model it supports")
        self.vocabulary = Vocabulary(llama_cpp.llama_model_get_vocab(self.handle))
        self.n_vocabulary = self.vocabulary.size

    def __enter__(self) -> "Model":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the weights."""
        import llama_cpp

        if self.handle:
            llama_cpp.llama_model_free(self.handle)
            self.handle = None

    @property
    def n_layers(self) -> int:
        return self.fingerprint.n_layers

    @property
    def hidden_size(self) -> int:
        return self.fingerprint.hidden_size

    def tokenize(self, text: str) -> list[int]:
        """Token ids of text in which special tokens are written out, as chat templates do; nothing is added."""
        return self.vocabulary.tokenize(text)

    @property
    def chat_template(self) -> ChatTemplate:
        """The file's own, or the one given by hand, at the present time. Raises BaseModelError where there is none."""
        source = chosen(self._templates)
        if source is None:
            raise no_template(str(self.path), self._templates, read_header(self.path))
        return known_template(source, self.vocabulary.words, datetime.now().replace(microsecond=0))

    def encode_prompt(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of the conversation up to where the assistant is to speak. Raises as `ChatTemplate.prompt` does."""
        return self.vocabulary.tokenize_prompt(self.chat_template.prompt(messages))

    def ends_turn(self, token: int) -> bool:
        """Whether the model says with this token that its turn is over."""
        return self.vocabulary.ends_turn(token)

    def decode_pieces(self, tokens: Iterable[int]) -> Iterator[str]:
        """Text as its tokens come, up to the first that ends the turn; a character is given once it is whole."""
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        for token in tokens:
            if self.ends_turn(token):
                break
            if text := decoder.decode(self.piece(token)):
                yield text
        if text := decoder.decode(b"", final=True):
            yield text

    def piece(self, token: int, special: bool = False) -> bytes:
        """A token's bytes, which may be part of a character; of special tokens none unless asked for."""
        return self.vocabulary.piece(token, special)
