"""The tokenizer of a base that is a GGUF: transformers' own for templates and decoding, llama.cpp's ids."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from irm_lite.base.vocabulary import FileVocabulary, Vocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class GgufTokenizer:
    """A tokenizer as transformers makes it of the file, but for the ids of a text, which are llama.cpp's."""

    def __init__(self, own: "PreTrainedTokenizerBase", gguf: Path) -> None:
        self._own = own
        self.vocabulary: Vocabulary = FileVocabulary(gguf)
        self.chat_template = own.chat_template
        self.turn_end_ids = self.vocabulary.turn_ends

    def __getattr__(self, name: str) -> Any:
        return getattr(self._own, name)

    def apply_chat_template(self, *arguments: Any, **options: Any) -> Any:
        return self._own.apply_chat_template(*arguments, chat_template=self.chat_template, **options)

    def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
        """`input_ids` of a text, with bos and eos as the file asks if `add_special_tokens`."""
        return {"input_ids": self.vocabulary.tokenize(text, add_special_tokens)}

    def encode_rendered(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """The ids of what the chat template has rendered, as llama-server makes them, and where in the text each is."""
        ids = self.vocabulary.tokenize_prompt(text)
        return ids, offsets(self.vocabulary, text, ids)


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
