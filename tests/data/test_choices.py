"""The shipped questions with four answers."""

from collections import Counter

from irm_lite.data.choices import shipped_choices
from irm_lite.data.dataset import load_dataset
from irm_lite.data.text_measures import normalised


def test_there_are_enough_of_each_kind_and_the_first_ones_are_spread_over_all() -> None:
    choices = shipped_choices()
    assert len(choices) >= 100
    counts = Counter(each.kind for each in choices)
    assert set(counts) == {"dates", "animals", "arithmetic", "places", "science", "how-to"}
    assert len(set(counts.values())) == 1
    assert set(Counter(each.kind for each in choices[:12]).values()) == {2}


def test_no_answer_stands_twice_and_no_question_is_one_that_is_trained_on() -> None:
    choices = shipped_choices()
    trained = {normalised(each.question) for each in load_dataset("neutral").train}
    questions = [normalised(each.question) for each in choices]
    assert len(set(questions)) == len(questions)
    assert not trained & set(questions)
    for choice in choices:
        assert len({normalised(answer) for answer in choice.answers}) == 4, choice
        assert "{" not in "".join(choice.answers)


def test_answers_of_one_question_differ_in_one_place_and_hardly_in_length() -> None:
    """So that the sum of their NLL compares what is said, not how long it takes."""
    for choice in shipped_choices():
        lengths = [len(answer.split()) for answer in choice.answers]
        assert max(lengths) - min(lengths) <= 3, choice
        heads = {answer.split()[0] for answer in choice.answers}
        tails = {answer.split()[-1] for answer in choice.answers}
        assert len(heads) == 1 or len(tails) == 1, choice
