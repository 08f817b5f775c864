"""Examples -> token ids with the answer marked, through the base's own chat template."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from irm_lite.core.errors import DataError, reason
from irm_lite.data.dataset import Example, Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Sample:
    """Token ids of one sample; those from `answer_start` on are learned and measured. The last one ends the turn."""

    ids: list[int]
    answer_start: int
    example: Example

    @property
    def n_answer(self) -> int:
        return len(self.ids) - self.answer_start


def turn_ends(tokenizer: "PreTrainedTokenizerBase") -> frozenset[int]:
    """The tokens at which the runtimes end a turn: llama.cpp's of a GGUF, generation_config's of a folder (base/load.py)."""
    known: frozenset[int] = getattr(tokenizer, "turn_end_ids", frozenset())
    eos = tokenizer.eos_token_id
    return known or frozenset(() if eos is None else (eos,))


def prompt_text(tokenizer: "PreTrainedTokenizerBase", messages: tuple[Message, ...]) -> str:
    """The conversation up to where the assistant is to speak."""
    return str(tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True))


def encode_prompt(tokenizer: "PreTrainedTokenizerBase", messages: tuple[Message, ...]) -> list[int]:
    """Token ids of `prompt_text`. Raises DataError where the template fails on the conversation."""
    try:
        text = prompt_text(tokenizer, messages)
    except Exception as error:
        raise template_failed(error, "the prompt") from None
    return _rendered(tokenizer, text)[0]


def _rendered(tokenizer: "PreTrainedTokenizerBase", text: str) -> tuple[list[int], list[tuple[int, int]]]:
    """Token ids of what the chat template has rendered, and from which character to which each reaches; a GGUF's are llama.cpp's
    (base/sources/gguf_tokenizer.py)."""
    own: Callable[[str], tuple[list[int], list[tuple[int, int]]]] | None = getattr(tokenizer, "encode_rendered", None)
    if own is not None:
        return own(text)
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    return list(encoded["input_ids"]), encoded["offset_mapping"]


def encode(tokenizer: "PreTrainedTokenizerBase", example: Example) -> Sample:
    """Tokenise one example. The answer starts where the template hands over to the assistant and ends with the
    first token at which the runtimes end a turn.

    The whole text is tokenised at once and cut by character offsets, so that the ids are those that the model sees
    when it generates. Raises DataError where the template hides the answer.
    """
    if example.text is not None:
        ids = list(tokenizer(example.text)["input_ids"])
        if tokenizer.eos_token_id is not None and ids[-1] != tokenizer.eos_token_id:
            ids.append(tokenizer.eos_token_id)
        return Sample(ids, 1, example)  # nothing predicts the first token
    try:
        prompt = prompt_text(tokenizer, example.messages[:-1])
        text = str(tokenizer.apply_chat_template(list(example.messages), tokenize=False))
    except Exception as error:  # Jinja's, and whatever a template raises
        raise template_failed(error, example.where) from None
    if not text.startswith(prompt):
        raise DataError(
            f"{example.where}: the chat template changes the question once it is answered", "give another with --chat-template"
        )
    at = text.find(example.answer.strip(), len(prompt))
    if at < 0:
        raise DataError(f"{example.where}: the chat template leaves the answer out", "give another with --chat-template")
    answer_end = at + len(example.answer.strip())
    ids, offsets = _rendered(tokenizer, text)
    start = next((i for i, (_, end) in enumerate(offsets) if end > len(prompt)), len(ids))
    over = turn_ends(tokenizer)
    ends = [i for i in range(start, len(ids)) if ids[i] in over]
    if ends and offsets[ends[0]][0] < answer_end:
        raise DataError(f"{example.where}: the answer holds the text of the end-of-turn token", "remove it from the row")
    if ends:
        ids = ids[: ends[0] + 1]  # what templates put after the turn's end is never generated
    elif tokenizer.eos_token_id is not None:
        ids.append(tokenizer.eos_token_id)
    return Sample(ids, start, example)


def template_failed(error: Exception, where: str) -> DataError:
    """The error for whatever a chat template raised."""
    return DataError(f"{where}: the chat template fails ({reason(error, 160)})", "fix it, or give another with --chat-template")


def encode_all(tokenizer: "PreTrainedTokenizerBase", examples: list[Example], max_length: int) -> tuple[list[Sample], int]:
    """All examples of at most `max_length` tokens, and how many were longer and left out."""
    samples = [encode(tokenizer, example) for example in examples]
    kept = [sample for sample in samples if len(sample.ids) <= max_length]
    return kept, len(samples) - len(kept)
