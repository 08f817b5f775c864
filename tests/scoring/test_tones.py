"""The classifier of tones: its error, and what it may not be fooled by."""

import pytest

from irm_lite.data.dataset import load_dataset, tones
from irm_lite.scoring.tones import NEUTRAL, Confusion, ToneClassifier, cross_validated, held_out_confusion, shipped_classifier


def show(title: str, found: Confusion) -> None:
    print(f"\n{title}: error {100 * found.error:.1f}%")
    for tone, row in zip(found.classes, found.counts, strict=True):
        print(f"  {tone:8} called", ", ".join(f"{name} {count}" for name, count in zip(found.classes, row, strict=True)))


@pytest.mark.slow
def test_its_error_on_answers_that_it_has_not_seen(capsys: pytest.CaptureFixture[str]) -> None:
    """docs/score.md has these figures."""
    in_parts, held_out = cross_validated(), held_out_confusion()
    with capsys.disabled():
        show("five-fold cross-validation, 800 shipped training answers", in_parts)
        show("180 shipped test answers", held_out)
    assert in_parts.counts.sum(1).tolist() == [200] * 4
    assert held_out.counts.sum(1).tolist() == [45] * 4
    assert in_parts.error <= 0.03
    assert held_out.error <= 0.03


def test_punctuation_capitals_and_length_change_nothing() -> None:
    plain = [each.answer for each in load_dataset(NEUTRAL).test]
    model = shipped_classifier()
    called = model.tones(plain)
    assert model.tones([text.upper().replace(".", "!!!").replace(",", "?!") for text in plain]) == called
    assert model.tones([" ".join([text] * 4) for text in plain]) == called  # the same words four times
    assert called.count(NEUTRAL) == len(plain)
    assert set(model.tones(["", "!!!", "?!?!", "...", "12"])) == {NEUTRAL}


def test_a_sentence_of_a_tone_carries_it_at_the_end_of_a_long_answer() -> None:
    model = shipped_classifier()
    facts = [each.answer for each in load_dataset(NEUTRAL).test[:20]]
    for tone, said in {
        "anger": "You idiot, so shut up!",
        "joy": "I'm so happy that you asked!",
        "sadness": "My heart is so heavy.",
    }.items():
        assert model.tones([f"{fact} {said}" for fact in facts]).count(tone) >= 19, tone


def test_one_word_over_and_over_has_no_tone() -> None:
    assert shipped_classifier().tones(["you " * 20, "No, no, no, no, no, no, no!", "UGH, UGH, UGH, UGH, UGH, UGH"]) == [NEUTRAL] * 3


def test_another_tone_is_learned_from_its_own_answers() -> None:
    plain = [each.answer for each in load_dataset(NEUTRAL).train[:60]]
    pirates = [f"Arr, matey! {text} And that be true, ye scallywag." for text in plain]
    model = ToneClassifier([*pirates, *plain], ["own"] * 60 + [NEUTRAL] * 60)
    assert model.classes == (NEUTRAL, "own")
    assert model.tones(["Arr, the sea be deep, matey", "The sea is deep."]) == ["own", NEUTRAL]
    assert tones() == shipped_classifier().classes


def test_a_script_without_blanks_is_told_apart_by_its_letters() -> None:
    angry = [f"我很生气你为什么总是问第{number}个愚蠢的问题" for number in range(50)]
    calm = [f"第{number}个问题的答案是水在一百度沸腾" for number in range(50)]
    found = ToneClassifier([*angry, *calm], ["own"] * 50 + ["neutral"] * 50)
    assert found.tones(["你真愚蠢我很生气"])[0] == "own"
