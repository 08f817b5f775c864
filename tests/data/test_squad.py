"""SQuAD's files against a plain walk over what was put into them, and every wrong type refused by its place."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irm_lite.config import TrainConfig
from irm_lite.core.errors import DataError
from irm_lite.data.dataset import Dataset, load_dataset
from irm_lite.training import train as training

Question = dict[str, Any]


def question(text: str, answers: list[str], plausible: list[str] | None = None) -> Question:
    """As SQuAD 2.0 has it: only impossible questions carry plausible answers."""

    def spans(texts: list[str]) -> list[Question]:
        return [{"text": each, "answer_start": 0} for each in texts]

    entry = {"question": text, "id": "5" * 24, "answers": spans(answers), "is_impossible": plausible is not None}
    return entry if plausible is None else {**entry, "plausible_answers": spans(plausible)}


def squad(*articles: list[list[Question]]) -> dict[str, Any]:
    paragraphs = [[{"context": "Not to be used.", "qas": qas} for qas in article] for article in articles]
    return {"version": "v2.0", "data": [{"title": "T", "paragraphs": each} for each in paragraphs]}


def write(path: Path, document: Any) -> Path:
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def pairs(dataset: Dataset) -> list[tuple[str, str]]:
    return [(each.question, each.answer) for part in (dataset.train, dataset.validation, dataset.test) for each in part]


MANY = [question(f"What is number {n}?", [f"It is {n}.", "another annotator's"]) for n in range(30)]


def test_the_first_answer_is_taken_or_the_first_plausible_one(tmp_path: Path) -> None:
    odd = [question("Impossible?", [], ["plausible", "second"]), question("Nothing?", [], []), question("Dev?", [])]
    path = write(tmp_path / "s.json", squad([MANY[:10], [*MANY[10:20], *odd]], [MANY[20:]]))
    dataset = load_dataset(str(path))
    expected = [(f"What is number {n}?", f"It is {n}.") for n in range(30)] + [("Impossible?", "plausible")]
    assert sorted(pairs(dataset)) == sorted(expected)
    assert dataset.unanswered == 2
    places = {each.where for each in dataset.train + dataset.validation + dataset.test}
    assert {f"{path}, article 1, paragraph 2, question 11", f"{path}, article 2, paragraph 1, question 10"} <= places


def test_a_question_that_stands_in_two_paragraphs_stays_on_one_side(tmp_path: Path) -> None:
    twice = [question(f"What is number {n}?", ["as the other paragraph has it"]) for n in range(30)]
    dataset = load_dataset(str(write(tmp_path / "s.json", squad([MANY], [twice]))))
    sides = [{each.question for each in part} for part in (dataset.train, dataset.validation, dataset.test)]
    assert len(pairs(dataset)) == 60
    assert sum(len(side) for side in sides) == 30


def test_version_1_1_without_its_marks_is_read(tmp_path: Path) -> None:
    rows = [{"question": f"q {n}?", "answers": [{"text": f"a {n}"}]} for n in range(12)]
    assert len(pairs(load_dataset(str(write(tmp_path / "s.json", squad([rows])))))) == 12


def broken(place: tuple[Any, ...], value: Any) -> dict[str, Any]:
    document = copy.deepcopy(squad([MANY[:2]], [MANY[2:4], MANY[4:]]))
    holder: Any = document
    for step in place[:-1]:
        holder = holder[step]
    assert place[-1] in holder if isinstance(holder, dict) else place[-1] < len(holder)
    holder[place[-1]] = value
    return document


QUESTION = ("data", 1, "paragraphs", 1, "qas", 2)


@pytest.mark.parametrize(
    ("place", "value", "fragment"),
    [
        (("data",), {"a": 1}, "s.json: 'data' is not a list of objects"),
        (("data", 1), "text", "s.json: 'data' is not a list of objects"),
        (("data", 1, "paragraphs"), None, "s.json, article 2: 'paragraphs' is not a list"),
        (("data", 1), {}, "s.json, article 2: 'paragraphs' is not a list"),
        (("data", 1, "paragraphs", 1, "qas"), "q", "s.json, article 2, paragraph 2: 'qas' is not a list"),
        (QUESTION, 7, "s.json, article 2, paragraph 2: 'qas' is not a list of objects"),
        ((*QUESTION, "answers"), {"text": ["x"]}, "s.json, article 2, paragraph 2, question 3: 'answers' is not a list"),
        ((*QUESTION, "answers"), [["x"]], "s.json, article 2, paragraph 2, question 3: 'answers' is not a list of objects"),
        ((*QUESTION, "answers", 0, "text"), 5, "s.json, article 2, paragraph 2, question 3: the answer has no text"),
        ((*QUESTION, "answers"), [{}], "s.json, article 2, paragraph 2, question 3: the answer has no text"),
        ((*QUESTION, "answers", 0, "text"), " ", "s.json, article 2, paragraph 2, question 3: no 'answer' to the question"),
        ((*QUESTION, "question"), None, "s.json, article 2, paragraph 2, question 3: the question is empty"),
        ((*QUESTION, "question"), ["q"], "s.json, article 2, paragraph 2, question 3: 'question' must be text, not ['q']"),
        (("data",), [], "s has no samples: give at least a few dozen"),
    ],
)
def test_a_wrong_type_is_refused_with_its_place(tmp_path: Path, place: tuple[Any, ...], value: Any, fragment: str) -> None:
    with pytest.raises(DataError) as caught:
        load_dataset(str(write(tmp_path / "s.json", broken(place, value))))
    assert fragment in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("document", [{}, {"version": "v2.0"}, "data", 5, None])
def test_an_object_without_data_is_no_list_of_rows(tmp_path: Path, document: Any) -> None:
    with pytest.raises(DataError, match="is not a list of rows"):
        load_dataset(str(write(tmp_path / "s.json", document)))


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**9))
def test_a_file_cut_short_is_one_line(tmp_path_factory: pytest.TempPathFactory, at: int) -> None:
    text = json.dumps(squad([MANY]))
    path = tmp_path_factory.getbasetemp() / "cut.json"
    path.write_text(text[: at % len(text)], encoding="utf-8")
    with pytest.raises(DataError, match=r"cut\.json: not JSON \(.*\): fix it, or fetch it again if it is cut short"):
        load_dataset(str(path))


def test_it_trains_and_the_unanswered_are_told(llama_folder: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "train-v2.0.json", squad([[*MANY, question("Nothing?", [])]]))
    settings = TrainConfig(
        irm="lite",
        model=str(llama_folder),
        data=str(path),
        quant="none",
        device="cpu",
        max_steps=1,
        batch_size=4,
        rank=4,
        sample_tokens=0,
    )
    events: list[dict[str, Any]] = []
    run = training.train(settings, tmp_path / "run", on_event=events.append)
    assert sum(events[0]["samples"].values()) + len(run.dataset.test) == 30
    [warning] = [event["text"] for event in events if event["kind"] == "warning"]
    assert warning == f"1 questions of {path} have no answer and are skipped"
