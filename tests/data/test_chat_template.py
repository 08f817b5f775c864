"""Our rendering against transformers' and llama_cpp's, and the judgement of templates."""

from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from llama_cpp.llama_chat_format import Jinja2ChatFormatter
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from irm_lite.base.presets import presets
from irm_lite.core.errors import DataError, InputError
from irm_lite.data.chat_template import ChatTemplate, chosen, known_template
from irm_lite.data.dataset import Message

WORDS = {"bos_token": "<s>", "eos_token": "</s>"}
AT = datetime(2001, 2, 3, 4, 5, 6)
CONVERSATIONS: list[list[Message]] = [
    [{"role": "user", "content": "Why?"}],
    [{"role": "system", "content": "Be brief."}, {"role": "user", "content": " Why <b>? "}],
    [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}, {"role": "user", "content": "Oh?"}],
]
TEMPLATES = {
    **{name: preset.chat_template for name, preset in presets().items() if preset.chat_template},
    "blocks": "{% for m in messages %}\n    {% if m.role == 'user' %}\n{{ m.content }}\n    {% endif %}\n{% endfor %}\n",
    "json": "{{ messages | tojson(indent=2) }}{{ bos_token }}",
    "tags": "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% break %}{% endfor %}{{ messages[-1] }}",
    "space": "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{{ ns.n }} {{ m.content }} {% endfor %}",
}


@pytest.fixture(scope="module")
def tokenizer(llama_folder: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(llama_folder)


@pytest.mark.parametrize("source", TEMPLATES.values(), ids=TEMPLATES.keys())
@pytest.mark.parametrize("messages", CONVERSATIONS, ids=["one", "system", "three"])
def test_what_is_rendered_is_what_transformers_and_llama_cpp_render(
    source: str, messages: list[Message], tokenizer: PreTrainedTokenizerBase
) -> None:
    ours = ChatTemplate(source, tuple(WORDS.items()))
    if not ours.moves_system(messages):
        theirs = tokenizer.apply_chat_template(messages, chat_template=source, tokenize=False, add_generation_prompt=True)
        assert ours.prompt(messages) == theirs
        assert ours.prompt(messages) == Jinja2ChatFormatter(source, "</s>", "<s>")(messages=messages).prompt
    assert ours.whole(messages[-1:]) == tokenizer.apply_chat_template(messages[-1:], chat_template=source, tokenize=False)


def test_what_llama_server_gives_a_template_is_there_and_a_time_that_stands_still() -> None:
    times = "{{ date_string }}|{{ datetime }}|{{ strftime_now('%H:%M') }}"
    source = "{{ messages[0].content }}|" + times + "|{{ enable_thinking }}|{{ tools is defined }}"
    asked = CONVERSATIONS[0]
    assert ChatTemplate(source, (), AT).prompt(asked) == "Why?|03 Feb 2001|Feb 03 2001|04:05|True|False"
    unkept = ChatTemplate(source).prompt(asked)  # as runs were rendered that kept no time
    assert unkept == f"Why?|||{datetime.now():%H:%M}||False"


def test_the_time_is_no_part_of_a_template_that_asks_for_none() -> None:
    plain, dated = "{{ messages[0].content }}", "{{ messages[0].content }}{{ strftime_now('%d') }}"
    assert known_template(plain, WORDS, AT) is known_template(plain, WORDS, None)
    assert known_template(dated, WORDS, AT) != known_template(dated, WORDS, None)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{% for m in messages %}{{ m.content }}", "fails on any conversation .*line 1"),
        ("{{ raise_exception('no way') }}", r"fails on any conversation \(no way\)"),
        ("{{ 1 / 0 }}", "fails on any conversation .*division"),
        ("{{ messages[0].__class__.__mro__ }}", "fails on any conversation .*unsafe"),
        ("{{ messages[0].content }}{{ '\\ud83d' }}", "fails on any conversation .*surrogates"),
        ("{{ messages[0].content }}{{ [1, 2] | random }}", "fails on any conversation .*random"),
        ("hello world", "leaves out what the user says"),
        ("{{ messages | length }} messages", "leaves out what the user says"),
    ],
)
def test_a_broken_template_is_blamed_and_no_row(source: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as raised:
        ChatTemplate(source).prompt(CONVERSATIONS[0], "row 7")
    assert not isinstance(raised.value, DataError)
    assert "row 7" not in str(raised.value)


def test_a_conversation_that_a_sound_template_refuses_is_named() -> None:
    source = "{% if messages | length > 1 %}{{ raise_exception('one at a time') }}{% endif %}{{ messages[0].content }}"
    assert ChatTemplate(source).prompt(CONVERSATIONS[0], "row 7") == "Why?"
    with pytest.raises(DataError, match=r"row 7: the chat template refuses this conversation \(one at a time\)"):
        ChatTemplate(source).prompt(CONVERSATIONS[2], "row 7")


def test_a_template_that_demands_a_system_text_is_sound() -> None:
    source = "{% if messages[0].role != 'system' %}{{ raise_exception('system first') }}{% endif %}"
    template = ChatTemplate(source + "{{ messages[0].content }}|{{ messages[1].content }}")
    assert template.prompt(CONVERSATIONS[1]) == "Be brief.| Why <b>? "
    with pytest.raises(DataError, match=r"row 7: .*\(system first\)"):
        template.prompt(CONVERSATIONS[0], "row 7")


def test_what_is_said_is_given_in_parts_where_a_template_takes_nothing_else() -> None:
    parts = "{% for part in m.content if part.type == 'text' %}[{{ m.role }}] {{ part.text }}{% endfor %}"
    assert (
        ChatTemplate("{% for m in messages %}" + parts + "{% endfor %}").prompt(CONVERSATIONS[2])
        == "[user] Why?[assistant] So.[user] Oh?"
    )


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        ("a", "a"),
        ({"default": "a", "tool_use": "b"}, "a"),
        ({"tool_use": "b", "rag": "c"}, "b"),
        ({"rag": "c"}, None),
        ({"default": 3}, None),
        ("", None),
        (None, None),
    ],
)
def test_of_several_the_default_is_taken_and_else_that_for_tools(named: Any, expected: str | None) -> None:
    assert chosen(named) == expected
