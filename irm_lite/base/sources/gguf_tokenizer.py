"""The tokenizer of a base that is a GGUF: transformers' own for templates and decoding, llama.cpp's ids."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irm_lite.base.vocabulary import FileVocabulary, Vocabulary

if TYPE_CHECKING:
    from transformers import BatchEncoding, PreTrainedTokenizerBase


_OURS = ("_own", "_gguf", "vocabulary", "chat_template", "turn_end_ids", "rendered_at")


class GgufTokenizer:
    """A tokenizer as transformers makes it of the file, but for the ids of a text, which are llama.cpp's."""

    def __init__(self, own: "PreTrainedTokenizerBase", gguf: Path) -> None:
        self._own, self._gguf = own, gguf
        self.vocabulary: Vocabulary = FileVocabulary(gguf)
        self.chat_template = own.chat_template
        self.turn_end_ids = self.vocabulary.turn_ends
        self.rendered_at: datetime | None = None

    def __getattr__(self, name: str) -> Any:
        if name in _OURS:  # not there yet, as when it is copied
            raise AttributeError(name)
        return getattr(self._own, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _OURS:
            object.__setattr__(self, name, value)
        else:
            setattr(self._own, name, value)

    def __len__(self) -> int:
        return len(self._own)

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (self._own, self._gguf, self.chat_template, self.rendered_at)  # it reads the file's vocabulary again

    def __copy__(self) -> "GgufTokenizer":
        copied = object.__new__(GgufTokenizer)
        for name in _OURS:
            setattr(copied, name, getattr(self, name))
        return copied

    @property
    def file(self) -> Path:
        """The GGUF whose vocabulary it is."""
        return self._gguf

    @property
    def special_tokens_map(self) -> dict[str, Any]:
        """As transformers has them, and bos and eos as llama.cpp gives them to chat templates."""
        return {**self._own.special_tokens_map, **self.vocabulary.words}

    def apply_chat_template(self, conversation: Any, *, tokenize: bool = True, return_dict: bool = True, **options: Any) -> Any:
        """As transformers' own, with llama.cpp's ids where they are asked for (of one conversation)."""
        options = {"chat_template": self.chat_template, **self.special_tokens_map, **options}
        tensors: dict[str, Any] = {name: options.pop(name) for name in ("return_tensors", "padding") if name in options}
        rendered = self._own.apply_chat_template(conversation, tokenize=False, **options)
        if not tokenize:
            return rendered
        found = self._encoding(self.encode_rendered(rendered)[0], tensors)
        return found if return_dict else found["input_ids"]

    def __call__(self, text: str | list[str], *, add_special_tokens: bool = True, **options: Any) -> "BatchEncoding":
        """As transformers' tokenizers are called, with what `pad` takes as options (return_tensors, padding); bos and eos as the
        file asks if `add_special_tokens`."""
        if isinstance(text, str):
            return self._encoding(self.vocabulary.tokenize(text, add_special_tokens), options)
        ids = [self.vocabulary.tokenize(each, add_special_tokens) for each in text]
        return self._own.pad({"input_ids": ids}, **{"padding": False, **options})

    def _encoding(self, ids: list[int], options: dict[str, Any]) -> "BatchEncoding":
        from transformers import BatchEncoding

        if options:
            return self._own.pad({"input_ids": [ids]}, **{"padding": False, **options})
        return BatchEncoding({"input_ids": ids, "attention_mask": [1] * len(ids)})

    def tokenize(self, text: str, add_special_tokens: bool = False) -> list[str]:
        """The tokens' own texts."""
        return list(self._own.convert_ids_to_tokens(self.encode(text, add_special_tokens)))

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """The `input_ids` alone."""
        return self.vocabulary.tokenize(text, add_special_tokens)

    def encode_rendered(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """The ids of what the chat template has rendered, as llama-server makes them, and where in the text each is."""
        return VocabularyIds(self.vocabulary)(text)


@dataclass(frozen=True)
class VocabularyIds:
    """The ids that llama-server makes of rendered text, for `data.encoding.turn_ids`."""

    vocabulary: Vocabulary

    @property
    def ends(self) -> frozenset[int]:
        return self.vocabulary.turn_ends

    @property
    def eos(self) -> int | None:
        return self.vocabulary.eos_id

    def __call__(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        ids = self.vocabulary.tokenize_prompt(text)
        return ids, offsets(self.vocabulary, text, ids)


def _again(own: "PreTrainedTokenizerBase", gguf: Path, chat_template: Any, rendered_at: datetime | None) -> GgufTokenizer:
    made = GgufTokenizer(own, gguf)
    made.chat_template, made.rendered_at = chat_template, rendered_at
    return made


def offsets(vocabulary: Vocabulary, text: str, ids: list[int]) -> list[tuple[int, int]]:
    """Where in the text each token is, in characters: its bytes are the text's next ones. A blank that SentencePiece puts before a
    text, or a token that was added, takes none of them."""
    data = text.encode()
    at, found = 0, []
    for token in ids:
        piece = vocabulary.piece(token, special=True)
        if not data.startswith(piece, at):
            piece = piece[1:] if piece[:1] == b" " and data.startswith(piece[1:], at) else b""
        found.append((at, at + len(piece)))
        at += len(piece)
    starts = _characters(data)
    return [(starts[first], starts[last]) for first, last in found]


def _characters(data: bytes) -> list[int]:
    """For each place between bytes, 0 to len(data), how many characters begin before it."""
    counts, total = [0], 0
    for byte in data:
        total += byte & 0xC0 != 0x80
        counts.append(total)
    return counts
