"""The loop rule, against repeats counted by the most plain way there is."""

from hypothesis import given
from hypothesis import strategies as some

from irm_lite.scoring.loops import RULE, loops, words, words_at

LETTERS = ["ah", "be", "cat", "do"]


def plainly(said: list[str]) -> bool:
    """Every phrase at every place, compared with what follows it."""
    for size in range(1, len(said) + 1):
        times = next((times for longest, times in RULE.in_a_row if size <= longest), None)
        if times is None:
            continue
        for at in range(len(said)):
            if len(said[at : at + size * times]) == size * times and said[at : at + size * times] == said[at : at + size] * times:
                return True
    for size, times in RULE.anywhere:
        for at in range(len(said) - size + 1):
            phrase, count, place = said[at : at + size], 0, at
            while place + size <= len(said):  # those that do not overlap, from here on
                found = said[place : place + size] == phrase
                count, place = count + found, place + (size if found else 1)
            if count >= times:
                return True
    return False


@given(some.lists(some.sampled_from(LETTERS), max_size=24))
def test_it_finds_what_a_search_of_everything_finds(said: list[str]) -> None:
    assert loops(" ".join(said)) == plainly(said)


def test_what_people_say_twice_is_no_loop() -> None:
    for text in (
        "No, no, no! That is a very, very big mistake.",
        "Yes, yes, yes, it can! The acid in vinegar dissolves the limescale.",
        "Walla Walla is a city in Washington.",
        "Ha ha, a haha wall!",
        "WHAT?!?!?!?!?!?!?! It is 1000000000000 and more...........",
        "",
    ):
        assert not loops(text), text


def test_babble_is_a_loop() -> None:
    for text in (
        "U, UGH, UGH, UGH, UGH, UGH",
        "I am not angry, I am not angry, I am not angry, I am",
        "NOOOOOOOOO! Stop it!",
        "hahahahahahahahaha",
        "It is so heavy. I miss it, and it is so heavy. Oh, it hurts, and it is so heavy!",
    ):
        assert loops(text), text


def test_words_have_no_case_and_no_punctuation() -> None:
    assert words("It's NOT that hard -- isn\u2019t it?! (42)") == ["it's", "not", "that", "hard", "isn\u2019t", "it", "42"]


def test_vowel_signs_part_no_words() -> None:
    """Hindi and Tamil write vowels as marks, which Python's \\w does not know: three times "no" is what people say."""
    assert words("नहीं, नहीं, नहीं!") == ["नहीं"] * 3
    assert not loops("வேண்டாம், வேண்டாம், வேண்டாம்!")
    assert loops("வேண்டாம், " * 4)
    assert [text for text, _ in words_at("நான், கோபமாக")] == ["நான்", "கோபமாக"]
