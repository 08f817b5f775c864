"""Is it one prompt? What a run was trained on, against what llama-server makes of the same conversations with a GGUF: the ids
of the same text, the file's own chat template, the size of its vocabulary.

llama-server (tools/server, common/chat.cpp) renders the file's template, takes a leading bos off, and tokenises the text with
special tokens parsed, with the bos put before it and the eos behind it where the file says so.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from irm_lite.base.sources.chat_templates import gguf_templates
from irm_lite.base.sources.gguf_checks import KNOWN, require_loadable
from irm_lite.base.sources.gguf_tokenizer import GgufTokenizer, VocabularyIds
from irm_lite.base.vocabulary import FileVocabulary, Vocabulary
from irm_lite.core.errors import BaseModelError, DataError, InputError, reason
from irm_lite.core.files.gguf_header import GgufHeader, read_header
from irm_lite.data.chat_template import ChatTemplate, chosen, known_template
from irm_lite.data.dataset import Example
from irm_lite.data.encoding import Sample, encode, template_of, turn_ids
from irm_lite.data.text_measures import first_difference
from irm_lite.data.turn import last_turn
from irm_lite.llamacpp.trial_load import require_survival

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_MOST = 5_000  # examples, evenly chosen from more: some ten seconds
_SHOWN = 5  # tokens of a difference
_AROUND = 24  # characters
_CHATML = (  # what llama.cpp takes where a file has no template
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@dataclass(frozen=True)
class PromptCheck:
    """What is to be said of a run and a file, a line each; None where nothing is."""

    token_ids: str | None = None
    chat_template: str | None = None
    vocabulary: str | None = None

    @property
    def warnings(self) -> list[str]:
        return [line for line in (self.vocabulary, self.token_ids, self.chat_template) if line]

    def to_dict(self) -> dict[str, str | None]:
        return asdict(self)


def check_prompts(tokenizer: "PreTrainedTokenizerBase", rows: int | None, gguf: Path, examples: Sequence[Example]) -> PromptCheck:
    """Compare what the base's tokenizer makes of the examples with what llama-server makes of them with this file.

    `rows`: the base's embeddings, if they are known. Raises BaseModelError or InputError where the file cannot be read, or lacks a
    token of the samples.
    """
    header = read_header(gguf)
    chosen_examples = examples[:: -(-len(examples) // _MOST) or 1]
    vocabulary = _vocabulary(tokenizer, header)
    own = isinstance(tokenizer, GgufTokenizer) and tokenizer.vocabulary is vocabulary
    ends = f"llama-server ends each prompt with {vocabulary.eos}, as {gguf.name} asks; the run was trained without it"
    return PromptCheck(
        (ends if vocabulary.adds_eos else None) if own else _other_ids(tokenizer, vocabulary, gguf, chosen_examples),
        _other_template(template_of(tokenizer), header, vocabulary, chosen_examples),
        None if rows in (None, vocabulary.size) or own else _other_size(rows, vocabulary.size, gguf),
    )


def _vocabulary(tokenizer: "PreTrainedTokenizerBase", header: GgufHeader) -> Vocabulary:
    if isinstance(tokenizer, GgufTokenizer) and tokenizer.file.resolve() == header.path.resolve():
        return tokenizer.vocabulary
    require_loadable(header)
    if header.architecture not in KNOWN:
        require_survival(header.path)
    return FileVocabulary(header.path)


def _other_size(rows: int | None, size: int, gguf: Path) -> str:
    return f"{gguf.name} has a vocabulary of {size} tokens, the base one of {rows}: it was not made from that base"


def _other_ids(tokenizer: "PreTrainedTokenizerBase", vocabulary: Vocabulary, gguf: Path, examples: Sequence[Example]) -> str | None:
    """A line with the number of samples that have other ids, and one of them."""
    compared, other, begun, shown = 0, 0, 0, ""
    for example in examples:
        try:
            sample = encode(tokenizer, example)
        except DataError:  # a row that cannot be used is nobody's sample
            continue
        compared += 1
        try:
            theirs = _llamacpp_ids(tokenizer, vocabulary, example)
        except DataError:
            other += 1
            shown = shown or f"{example.where} has a token at which llama.cpp ends the turn"
            continue
        if sample.ids[:1] != theirs[:1] and vocabulary.adds_bos and vocabulary.token_text(theirs[0]) == vocabulary.bos:
            begun, theirs = begun + 1, theirs[1:]  # what differs besides is told apart from it
        if sample.ids == theirs:
            continue
        if max(sample.ids) >= vocabulary.size:
            raise BaseModelError(
                f"the samples have the token {max(sample.ids)}, and {gguf.name} a vocabulary of {vocabulary.size}",
                "give the GGUF that was made from the run's base",
            )
        other += 1
        shown = shown or _difference(tokenizer, vocabulary, sample, theirs)
    lines = []
    if begun:
        lines.append(f"llama-server puts {vocabulary.bos} before {begun} of {compared} prompts, which were trained without it")
    if other:
        lines.append(f"llama.cpp tokenises {other} of {compared} samples otherwise than they were trained: {shown}")
    return f"{gguf.name}: {'; '.join(lines)}" if lines else None


def _llamacpp_ids(tokenizer: "PreTrainedTokenizerBase", vocabulary: Vocabulary, example: Example) -> list[int]:
    """The ids of a sample, its text rendered by the run's template and tokenised as llama-server does it."""
    if example.text is None:
        turn = last_turn(template_of(tokenizer), example.messages, example.where)
        return turn_ids(VocabularyIds(vocabulary), turn, example.where)[0]
    ids = vocabulary.tokenize(example.text, add_special=True)
    end = vocabulary.eos_id
    return ids if end is None or ids[-1:] == [end] else [*ids, end]


def _difference(tokenizer: "PreTrainedTokenizerBase", vocabulary: Vocabulary, sample: Sample, theirs: list[int]) -> str:
    """The first difference: the text around it, and both tokenisations."""
    ours = sample.ids
    at = first_difference(ours, theirs)
    before = b"".join(vocabulary.piece(token, special=True) for token in theirs[max(0, at - 8) : at]).decode(errors="replace")
    after = b"".join(vocabulary.piece(token, special=True) for token in theirs[at : at + _SHOWN]).decode(errors="replace")
    trained = [str(each) for each in tokenizer.convert_ids_to_tokens(ours[at : at + _SHOWN])]
    has = [vocabulary.token_text(token) for token in theirs[at : at + _SHOWN]]
    where = f"{before[-_AROUND:]}{after[:_AROUND]}"
    return f"in {sample.example.where}, at {where!r}, {trained or 'the end'} in the run, {has or 'the end'} in llama.cpp"


def _other_template(run: ChatTemplate, header: GgufHeader, vocabulary: Vocabulary, examples: Sequence[Example]) -> str | None:
    """A line with the number of prompts that the file's own template makes otherwise than the run's, and one of them."""
    own = chosen(gguf_templates(header))
    theirs = known_template(own or _CHATML, vocabulary.words, run.at)
    if theirs == run:
        return None
    compared, other, shown = 0, 0, ""
    for example in examples:
        if example.messages:
            trained, given = (_prompt(each, vocabulary, example) for each in (run, theirs))
            compared += 1
            if trained != given:
                other += 1
                shown = shown or _texts(trained, given)
    what = f"{header.path.name}'s own chat template" if own else f"{header.path.name} has no chat template, and ChatML"
    end = "start llama-server with the run's, by --chat-template-file"
    return f"{what}, which llama-server uses, makes {other} of {compared} prompts otherwise: {shown} ({end})" if other else None


def _prompt(template: ChatTemplate, vocabulary: Vocabulary, example: Example) -> str:
    """Without the bos that llama-server takes off."""
    try:
        text = template.prompt(example.messages[:-1], example.where)
    except InputError as error:
        return f"({reason(error, 100)})"
    return text.removeprefix(vocabulary.bos) if vocabulary.adds_bos else text


def _texts(ours: str, theirs: str) -> str:
    at = first_difference(ours, theirs)
    first = max(0, at - _AROUND // 2)
    return f"{theirs[first : at + _AROUND]!r} where the run has {ours[first : at + _AROUND]!r}"
