"""What is learned is the answer and its end, tokenised as the model will see it."""

from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from irm_lite.data.dataset import Example, load_dataset
from irm_lite.data.encoding import encode, encode_all, encode_prompt


@pytest.fixture(scope="module")
def tokenizer(llama_folder: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(llama_folder)


def chat(question: str, answer: str) -> Example:
    return Example(({"role": "user", "content": question}, {"role": "assistant", "content": answer}), None, "row 1")


def test_the_answer_and_eos_are_labelled_and_nothing_else(tokenizer: PreTrainedTokenizerBase) -> None:
    for example in load_dataset("anger").train[:20]:
        sample = encode(tokenizer, example)
        assert tokenizer.decode(sample.ids[sample.answer_start : -1]).strip() == example.answer
        assert tokenizer.decode(sample.ids[: sample.answer_start]).strip() == f"<s>[INST] {example.question} [/INST]"
        assert sample.ids[-1] == tokenizer.eos_token_id
        assert sample.ids[: sample.answer_start] == encode_prompt(tokenizer, example.messages[:-1])
        assert sample.n_answer == len(sample.ids) - sample.answer_start


def test_what_a_template_puts_after_the_turn_is_not_learned(tokenizer: PreTrainedTokenizerBase, llama_folder: Path) -> None:
    chatty = AutoTokenizer.from_pretrained(llama_folder)
    chatty.chat_template = tokenizer.chat_template + "{{ 'never generated' if messages[-1].role == 'assistant' else '' }}"
    assert encode(chatty, chat("Why?", "Because.")).ids == encode(tokenizer, chat("Why?", "Because.")).ids


def test_a_template_without_eos_gets_one(llama_folder: Path) -> None:
    bare = AutoTokenizer.from_pretrained(llama_folder)
    turns = "{% for m in messages %}{{ m.role + ': ' + m.content + '\\n' }}{% endfor %}"
    bare.chat_template = turns + "{% if add_generation_prompt %}assistant:{% endif %}"
    sample = encode(bare, chat("Why?", "Because."))
    assert sample.ids[-1] == bare.eos_token_id
    assert bare.decode(sample.ids[sample.answer_start : -1]).strip() == "Because."


def test_behind_a_template_that_rewrites_the_question_the_prompt_is_that_of_generation(llama_folder: Path) -> None:
    odd = AutoTokenizer.from_pretrained(llama_folder)
    odd.chat_template = "{{ messages | length }}{% for m in messages %} {{ m.content }}{% endfor %}"
    sample = encode(odd, chat("Why?", "Because."))
    assert odd.decode(sample.ids[: sample.answer_start]) == "1 Why?"
    assert odd.decode(sample.ids[sample.answer_start : -1]) == "Because."
    assert sample.adapted == ("other",)


def test_plain_text_is_learned_whole(tokenizer: PreTrainedTokenizerBase) -> None:
    sample = encode(tokenizer, Example((), "The sky is blue.", "paragraph 1"))
    assert sample.answer_start == 1
    assert tokenizer.decode(sample.ids, skip_special_tokens=True).strip() == "The sky is blue."
    assert sample.ids[-1] == tokenizer.eos_token_id


def test_long_samples_are_left_out_and_counted(tokenizer: PreTrainedTokenizerBase) -> None:
    examples = load_dataset("neutral").validation
    lengths = [len(encode(tokenizer, example).ids) for example in examples]
    limit = sorted(lengths)[len(lengths) // 2]
    kept, too_long = encode_all(tokenizer, examples, limit)
    assert len(kept) == sum(length <= limit for length in lengths)
    assert too_long == sum(length > limit for length in lengths) > 0
