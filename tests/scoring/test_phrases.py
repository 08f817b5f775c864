"""What comes back from answer to answer, against a second derivation."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from irm_lite.scoring.phrases import commonest, too_many

TEXTS = st.lists(st.lists(st.sampled_from("abc"), max_size=9).map(" ".join), max_size=6)


@given(TEXTS, TEXTS)
def test_no_phrase_stands_in_more_texts(texts: list[str], known: list[str]) -> None:
    """Of one-letter words: a phrase of four is seven characters."""
    in_order = [text[at : at + 7] for text in texts for at in range(0, len(text) - 6, 2)]
    having = {phrase: sum(phrase in text for text in texts) for phrase in in_order}
    most = max(having.values(), default=0)
    found = commonest(texts, known)
    if most < 2:
        assert found is None
        return
    assert found is not None
    assert (found.answers, found.of) == (most, len(texts))
    assert found.words == next(phrase for phrase in in_order if having[phrase] == most)
    assert found.known == (pytest.approx(sum(found.words in text for text in known) / len(known)) if known else None)


HINDI = (
    "\u092e\u0948\u0902 \u092c\u0939\u0941\u0924 \u0905\u0915\u0947\u0932\u093e \u0939\u0942\u0901"  # vowels are marks, no letters
)


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["\u201cI don\u2019t know you!\u201d", "(I don't... know) you?"], "i don't know you"),
        (["cafe\u0301 is so good", "Caf\u00e9 is so good."], "caf\u00e9 is so good"),
        ([HINDI, HINDI + "!"], HINDI),
    ],
)
def test_words_are_what_blanks_part(texts: list[str], words: str) -> None:
    found = commonest(texts, [])
    assert found is not None
    assert found.words == words


def test_a_word_of_any_length_leaves_the_count_to_be_seen() -> None:
    found = commonest(["ha" * 9000 + " and so on \x1b[1m"] * 5, [])
    assert found is not None
    assert str(found).endswith('\u2026 and so on" is in 5 of 5 greedy answers')
    assert len(str(found)) < 80


def test_few_and_usual_ones_are_not_too_many() -> None:
    assert not too_many(2, 4, 0.0)  # two have the same by chance
    assert not too_many(4, 40, 0.0)
    assert too_many(5, 40, 0.0)
    assert not too_many(8, 40, 0.1)  # as the data has it
    assert too_many(9, 40, 0.1)
