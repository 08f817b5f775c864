"""A turn is the prompt of generation, the answer as the data have it, and the turn's end, whatever a template does to answers."""

import pytest

from irm_lite.data.chat_template import ChatTemplate
from irm_lite.data.turn import Turn, adaptations, last_turn

TURNS = "{% for m in messages %}<{{ m.role }}>BODY<end>{% endfor %}{% if add_generation_prompt %}<assistant>PREFIX{% endif %}"
SHORN = "{% set c = m.content %}{% if '</think>' in c %}{% set c = c.split('</think>')[-1].lstrip() %}{% endif %}{{ c }}"
REFILLED = (  # Qwen 3's way: the last answer has a thought, be it empty
    "{% set t = '' %}{% set c = m.content %}{% if '</think>' in c %}"
    "{% set t = c.split('</think>')[0].split('<think>')[-1].strip() %}{% set c = c.split('</think>')[-1].strip() %}{% endif %}"
    "{% if m.role == 'assistant' %}<think>\n{{ t }}\n</think>\n\n{% endif %}{{ c }}"
)


def turn(body: str, answer: str, prefix: str = "", source: str = TURNS) -> Turn:
    messages = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": answer}]
    template = ChatTemplate(source.replace("BODY", body).replace("PREFIX", prefix))
    found = last_turn(template, messages, "row 1")
    assert found.prompt == template.prompt(messages[:1])  # always what the runtime is given
    assert found.rest[: found.answer_end].endswith(answer.strip()[-3:])
    return found


@pytest.mark.parametrize(
    ("body", "prefix", "answer", "rest", "adapted"),
    [
        ("{{ m.content }}", "", "So it is.", "So it is.<end>", ()),
        (" {{ m.content | trim }} ", " ", "  So it is. ", "So it is. <end>", ()),
        ("{{ m.content.split() | join(' ') }}", "", "So\n\nit is.", "So\n\nit is.<end>", ("changed",)),
        # a thought that is begun for the model, and dropped from what was answered (DeepSeek R1's way)
        (SHORN, "<think>\n", "So it is.", "\n</think>\n\nSo it is.<end>", ("thought",)),
        (SHORN, "<think>\n", "<think>\nHm.\n</think>\n\nSo it is.", "Hm.\n</think>\n\nSo it is.<end>", ("other",)),
        (SHORN, "", "<think>\nHm.\n</think>\n\nSo it is.", "<think>\nHm.\n</think>\n\nSo it is.<end>", ("changed",)),
        # an empty thought in what was answered: the model is to write it, or to close it where it was begun
        (REFILLED, "", "So it is.", "<think>\n\n</think>\n\nSo it is.<end>", ("thought",)),
        (REFILLED, "<think>\n", "So it is.", "\n</think>\n\nSo it is.<end>", ("thought",)),
        (REFILLED, "<think>\n", "<think>Hm.</think>So it is.", "Hm.\n</think>\n\nSo it is.<end>", ()),
        # an empty thought that was written otherwise than it is begun (Nemotron's way)
        (
            "{% if m.role == 'assistant' %}<think></think>{% endif %}{{ m.content }}",
            "<think>\n",
            "So.",
            "</think>So.<end>",
            ("thought",),
        ),
        # the beginning of an answer that is no thought
        ("{{ m.content }}", "Sure! ", "So it is.", "So it is.<end>", ("other",)),
        ("{{ m.content }}", "[THINK]", "So it is.", "\n[/THINK]\n\nSo it is.<end>", ("thought",)),
        ("{{ messages | length }}{{ m.content }}", "", "So it is.", "So it is.<end>", ("other",)),
        # answers that are not shown at all
        ("{% if m.role == 'user' %}{{ m.content }}{% endif %}", "", "So it is.", "So it is.", ("unseen",)),
        ("{% if m.role != 'user' %}{{ raise_exception('users only') }}{% endif %}{{ m.content }}", "", "So.", "So.", ("unseen",)),
    ],
)
def test_the_rest_is_what_the_model_is_to_write(body: str, prefix: str, answer: str, rest: str, adapted: tuple[str, ...]) -> None:
    found = turn(body, answer, prefix)
    assert (found.rest, found.adapted) == (rest, adapted)


def test_an_answer_that_also_stands_before_itself_is_found_in_its_place() -> None:
    found = turn("{% if m.role == 'assistant' %}I say: {% endif %}{{ m.content }}", "I")
    assert (found.rest, found.answer_end) == ("I say: I<end>", len("I say: I"))


def test_a_system_text_without_a_place_stands_in_front_of_the_first_turn() -> None:
    source = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}" + TURNS.replace(
        "BODY", "{{ m.content }}"
    )
    messages = [{"role": role, "content": text} for role, text in (("system", "Be brief."), ("user", "Why?"), ("assistant", "So."))]
    found = last_turn(ChatTemplate(source.replace("PREFIX", "")), messages, "row 1")
    assert found == Turn("<user>Be brief.\nWhy?<end><assistant>", "So.<end>", 3, ("system",))


def test_what_was_adapted_is_told_once_a_kind_with_its_count() -> None:
    lines = adaptations([("system", "thought"), (), ("system",)])
    assert [line.rpartition(" (")[2] for line in lines] == ["2 samples)", "1 samples)"]
