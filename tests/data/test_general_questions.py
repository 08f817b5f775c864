"""The shipped questions that nothing is learned of: none is in the tones or among the choices."""

from irm_lite.data.choices import shipped_choices
from irm_lite.data.dataset import load_dataset
from irm_lite.data.general_questions import general_questions


def test_none_is_trained_or_scored() -> None:
    dataset, questions = load_dataset("neutral"), general_questions()
    known = {each.question for part in (dataset.train, dataset.validation, dataset.test) for each in part}
    known |= {choice.question for choice in shipped_choices()}
    assert len(set(questions)) == len(questions) >= 150
    assert not known & set(questions)
    assert all(question.endswith("?") and question == question.strip() for question in questions)
