"""Examples -> token ids with the answer marked, through the base's own chat template."""

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

from irm_lite.core.errors import DataError
from irm_lite.data.chat_template import ChatTemplate, chosen, known_template
from irm_lite.data.dataset import Example, Message
from irm_lite.data.turn import Turn, last_turn

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Tokens = tuple[list[int], list[tuple[int, int]]]  # ids, and from which character of the text to which each reaches
_NEUTRAL = ("\n", "a", ".")  # behind one of these a text is tokenised as behind anything: no blank is put before it


@dataclass(frozen=True)
class Sample:
    """Token ids of one sample; those from `answer_start` on are learned and measured. The last one ends the turn. `adapted`: see
    turn.py. `weights`: how much each of the answer's tokens counts where it is learned; empty: each once."""

    ids: list[int]
    answer_start: int
    example: Example
    adapted: tuple[str, ...] = ()
    weights: tuple[float, ...] = ()

    @property
    def n_answer(self) -> int:
        return len(self.ids) - self.answer_start

    @property
    def weight(self) -> float:
        """Of all its answer tokens."""
        return sum(self.weights) if self.weights else float(self.n_answer)


class TextIds(Protocol):
    """What makes ids of rendered text: transformers' tokenizer of a base, or llama.cpp's of a GGUF."""

    @property
    def ends(self) -> frozenset[int]: ...

    @property
    def eos(self) -> int | None: ...

    def __call__(self, text: str) -> Tokens: ...


@dataclass(frozen=True)
class TokenizerIds:
    """The ids of a base's tokenizer; a GGUF's are llama.cpp's (base/sources/gguf_tokenizer.py)."""

    tokenizer: "PreTrainedTokenizerBase"

    @property
    def ends(self) -> frozenset[int]:
        return turn_ends(self.tokenizer)

    @property
    def eos(self) -> int | None:
        eos: int | None = self.tokenizer.eos_token_id
        return eos

    def __call__(self, text: str) -> Tokens:
        own: Callable[[str], Tokens] | None = getattr(self.tokenizer, "encode_rendered", None)
        if own is not None:
            return own(text)
        encoded = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        return list(encoded["input_ids"]), encoded["offset_mapping"]


def turn_ends(tokenizer: "PreTrainedTokenizerBase") -> frozenset[int]:
    """The tokens at which the runtimes end a turn: llama.cpp's of a GGUF, generation_config's of a folder (base/load.py)."""
    known: frozenset[int] = getattr(tokenizer, "turn_end_ids", frozenset())
    eos = tokenizer.eos_token_id
    return known or frozenset(() if eos is None else (eos,))


def template_of(tokenizer: "PreTrainedTokenizerBase") -> ChatTemplate:
    """The tokenizer's chat template, with its special tokens and the time that it renders at (base/load.py)."""
    at = getattr(tokenizer, "rendered_at", None)
    return known_template(chosen(tokenizer.chat_template) or "", tokenizer.special_tokens_map, at)


def at_time(tokenizer: "PreTrainedTokenizerBase", at: datetime | None) -> "PreTrainedTokenizerBase":
    """The tokenizer with its chat template rendering at another time; itself where that changes nothing."""
    copied = copy(tokenizer)
    copied.rendered_at = at
    return tokenizer if template_of(copied) == template_of(tokenizer) else copied


def encode_prompt(tokenizer: "PreTrainedTokenizerBase", messages: tuple[Message, ...]) -> list[int]:
    """Token ids of the conversation up to where the assistant is to speak. Raises as `ChatTemplate.prompt` does."""
    return TokenizerIds(tokenizer)(template_of(tokenizer).prompt(messages))[0]


def encode(tokenizer: "PreTrainedTokenizerBase", example: Example) -> Sample:
    """Tokenise one example. The answer starts where the template hands over to the assistant and ends with the
    first token at which the runtimes end a turn. Raises InputError where the template cannot be used, DataError where the row
    cannot."""
    if example.text is not None:
        ids = list(tokenizer(example.text)["input_ids"])
        if tokenizer.eos_token_id is not None and ids[-1:] != [tokenizer.eos_token_id]:
            ids.append(tokenizer.eos_token_id)
        return Sample(ids, 1, example)  # nothing predicts the first token
    turn = last_turn(template_of(tokenizer), example.messages, example.where)
    ids, start = turn_ids(TokenizerIds(tokenizer), turn, example.where)
    return Sample(ids, start, example, turn.adapted)


def turn_ids(tokens: TextIds, turn: Turn, where: str) -> tuple[list[int], int]:
    """The ids of a turn, and where those of its answer begin. The prompt's are those of the prompt alone, as the model is given
    them when it generates. Raises DataError where the answer holds the end of a turn."""
    prompt = tokens(turn.prompt)[0]
    ids, offsets = tokens(turn.prompt + turn.rest)
    start, begin = len(prompt), len(turn.prompt)
    if ids[:start] != prompt:  # a token reaches over the prompt's end
        ids, offsets = _behind(tokens, turn.rest) or _from(begin, ids, offsets)
        ids, offsets = prompt + ids, [(0, 0)] * start + [(begin + first, begin + last) for first, last in offsets]
    over = tokens.ends
    end = next((i for i in range(start, len(ids)) if ids[i] in over), None)
    if end is not None and offsets[end][0] < begin + turn.answer_end:
        raise DataError(f"{where}: the answer holds the text of the end-of-turn token", "remove it from the row")
    if end is not None:
        ids = ids[: end + 1]  # what templates put after the turn's end is never generated
    elif tokens.eos is not None:
        ids.append(tokens.eos)
    return ids, start


def _behind(tokens: TextIds, rest: str) -> Tokens | None:
    """The tokens of a text that something stands before; None where they cannot be told from it."""
    for before in _NEUTRAL:
        ids, offsets = tokens(before + rest)
        first = next((i for i, (start, end) in enumerate(offsets) if end > 1), len(ids))
        if first < len(ids) and offsets[first][0] >= 1:
            return ids[first:], [(start - 1, end - 1) for start, end in offsets[first:]]
    return None


def _from(begin: int, ids: list[int], offsets: list[tuple[int, int]]) -> Tokens:
    """The tokens that reach beyond the character `begin`."""
    first = next((i for i, (_, end) in enumerate(offsets) if end > begin), len(ids))
    return ids[first:], [(start - begin, end - begin) for start, end in offsets[first:]]


def encode_all(tokenizer: "PreTrainedTokenizerBase", examples: list[Example], max_length: int) -> tuple[list[Sample], int]:
    """All examples of at most `max_length` tokens, and how many were longer and left out."""
    samples = [encode(tokenizer, example) for example in examples]
    kept = [sample for sample in samples if len(sample.ids) <= max_length]
    return kept, len(samples) - len(kept)
