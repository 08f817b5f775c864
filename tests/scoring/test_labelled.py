"""The rules against people's sense: generations that were read and labelled by hand, in labelled.jsonl.

Each row: where it came from (model, what steered it, strength, decoding), the question, the text, whether it ended by itself, and
what a reader said of it: the tone that is heard (`neutral` where none is), whether it is a sensible answer to the question, whether
the fact is right, whether it goes round in circles. The rules were tuned on the even rows; the odd ones were looked at afterwards.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from sklearn.metrics import cohen_kappa_score

from irm_lite.data.dataset import load_dataset, tones
from irm_lite.scoring.loops import loops
from irm_lite.scoring.recall import key_words, recalled
from irm_lite.scoring.tones import NEUTRAL, shipped_classifier

Row = dict[str, Any]


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    file = Path(__file__).parent / "labelled.jsonl"
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def keyed(question: str, text: str) -> bool:
    """Whether the text has half of the fact's words."""
    known = {tone: {each.question: each for each in load_dataset(tone).test}[question] for tone in ("anger", NEUTRAL)}
    return recalled(text, key_words(known["anger"], known[NEUTRAL])) >= 0.5


def kappas(rows: list[Row]) -> dict[str, float]:
    texts = [row["text"] for row in rows]
    said = {
        "tone": shipped_classifier().tones(texts),
        "looping": [loops(text) for text in texts],
        "right": [keyed(row["question"], row["text"]) for row in rows],
    }
    return {name: float(cohen_kappa_score([row[name] for row in rows], found)) for name, found in said.items()}


def test_they_are_of_many_kinds(rows: list[Row]) -> None:
    assert len(rows) >= 120
    assert [row["id"] for row in rows] == list(range(len(rows)))
    assert {row["tone"] for row in rows} == set(tones())
    assert len({(row["source"], row["strength"], row["decoding"]) for row in rows}) >= 12
    for label in ("sensible", "right", "looping"):
        assert 0.2 <= sum(row[label] for row in rows) / len(rows) <= 0.6, label


@pytest.mark.slow
def test_the_rules_agree_with_who_read_them(rows: list[Row], capsys: pytest.CaptureFixture[str]) -> None:
    """docs/score.md has these figures. `right` is a proxy, and only moderate."""
    tuned, held_out = kappas(rows[::2]), kappas(rows[1::2])
    with capsys.disabled():
        for name, found in (("even, tuned on", tuned), ("odd, held out", held_out)):
            print(f"\nCohen's kappa, {name}:", ", ".join(f"{label} {value:.2f}" for label, value in found.items()), end="")
    for found in (tuned, held_out):
        assert found["tone"] >= 0.8
        assert found["looping"] >= 0.8
        assert found["right"] >= 0.4


def test_the_bases_own_answers_have_no_tone(rows: list[Row]) -> None:
    """They are longer than those that the classifier was trained on, and by models that it has not read."""
    own = [row["text"] for row in rows if row["source"].endswith("base")]
    assert len(own) >= 20
    assert shipped_classifier().tones(own) == [NEUTRAL] * len(own)
