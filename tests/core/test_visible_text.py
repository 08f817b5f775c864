"""One rule of what in a text acts, held against Unicode's own categories and directions."""

import unicodedata
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from irm_lite.core.visible_text import acts, one_line, safe, short, visible, visible_lines
from support.hostile_texts import TEXT, acting

ALL = [chr(code) for code in range(0x110000)]
ANY = st.text(st.characters(exclude_categories=()))
LETTERS = st.text(st.characters(categories=("L", "M", "N", "P", "S")))
ACTING = st.text(st.sampled_from([each for each in ALL if acts(each)]))
KEEP_LINES = (visible_lines, safe)
SHOWN: tuple[Callable[[str], str], ...] = (visible, visible_lines, safe, one_line, short)


def category(of: str) -> set[str]:
    return {each for each in ALL if unicodedata.category(each) == of}


@pytest.mark.parametrize("of", ["Cc", "Cs", "Zl", "Zp"])
def test_controls_surrogates_and_separators_act_all(of: str) -> None:
    assert all(acts(each) for each in category(of))


def test_of_format_characters_joiners_and_signs_of_a_script_stay() -> None:
    stay = {unicodedata.name(each) for each in category("Cf") if not acts(each)}
    joining = {"ZERO WIDTH SPACE", "ZERO WIDTH NON-JOINER", "ZERO WIDTH JOINER"}
    assert joining <= stay
    scripts = ("ARABIC", "SYRIAC", "KAITHI", "EGYPTIAN HIEROGLYPH")
    assert all(name.startswith(scripts) for name in stay - joining)
    assert "ARABIC NUMBER SIGN" in stay
    assert "ARABIC LETTER MARK" not in stay


def test_what_the_other_tests_call_acting_acts() -> None:
    assert all(acts(each) for each in acting("".join(ALL)))


@pytest.mark.slow
def test_of_unassigned_ones_only_tags_and_noncharacters_act() -> None:
    tags = {each for each in category("Cn") if 0xE0000 <= ord(each) <= 0xE007F}
    noncharacters = {chr(plane * 0x10000 + low) for plane in range(17) for low in (0xFFFE, 0xFFFF)}
    noncharacters |= {chr(code) for code in range(0xFDD0, 0xFDF0)}
    assert {each for each in category("Cn") if acts(each)} == tags | noncharacters
    assert all(acts(chr(code)) for code in range(0xE0000, 0xE0080))


def test_every_other_character_stays() -> None:
    looked_at = {"Cc", "Cf", "Cs", "Cn", "Zl", "Zp"}
    assert not [each for each in ALL if acts(each) and unicodedata.category(each) not in looked_at]


@given(ANY)
def test_nothing_that_is_shown_acts(text: str) -> None:
    for show in SHOWN:
        left = show(text).replace("\n", "") if show in KEEP_LINES else show(text)
        assert not any(map(acts, left))
        left.encode()  # half characters are none of it


@given(ANY)
def test_what_is_shown_stays_as_it_is_when_shown_again(text: str) -> None:
    for show in (visible, visible_lines, safe, one_line):
        assert show(show(text)) == show(text)


@given(LETTERS)
def test_text_of_any_script_stays(text: str) -> None:
    assert {visible(text), visible_lines(text), safe(text), one_line(text)} == {text}


@given(ACTING)
def test_escapes_tell_what_stood_there(text: str) -> None:
    assert visible(text).encode("ascii").decode("unicode_escape") == text


@given(st.text(st.characters(exclude_characters="\t", exclude_categories=())))
def test_on_a_stream_each_character_keeps_its_place(text: str) -> None:
    shown = safe(text)
    assert len(shown) == len(text)
    assert all(new == old or new == "\ufffd" for new, old in zip(shown, text, strict=True))
    assert shown == "".join(map(safe, text))  # a model's answer comes in pieces


def test_joiners_stay_where_they_join() -> None:
    persian, hindi, khmer = "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645", "क्\u200dष", "ភាសា\u200bខ្មែរ"
    for text in (persian, hindi, khmer, "👩\u200d🚀"):
        assert {visible(text), safe(text), one_line(text)} == {text}
    assert visible("\u200d") == "\\u200d"  # a token of its own: else nobody sees it


def test_line_breaks_and_tabs() -> None:
    text = "a\n\tb\r\n\n c \n"
    assert visible(text) == "a\\n\\tb\\r\\n\\n c \\n"
    assert visible_lines(text) == "a\n    b\\r\n\n c \n"
    assert safe(text) == "a\n    b\ufffd\n\n c \n"
    assert one_line(text) == "a b\ufffd c"


def test_a_beginning_fits() -> None:
    assert short("  \n") == "\\n"
    assert short("  ") == "␣␣"
    assert short(TEXT, 8) == "a\\x1b[2…"
