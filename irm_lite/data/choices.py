"""The shipped questions with one right and three wrong answers, which tell what a steered model still knows. Imports no torch."""

import json
from dataclasses import dataclass
from functools import cache
from importlib import resources

from irm_lite.data.dataset import Example


@dataclass(frozen=True)
class Choice:
    """A question with four answers that differ in one place. `kind`: dates, animals, arithmetic, places, science, how-to."""

    kind: str
    question: str
    answers: tuple[str, ...]  # the right one first

    @property
    def examples(self) -> tuple[Example, ...]:
        """One for each answer."""
        asked = {"role": "user", "content": self.question}
        return tuple(
            Example((asked, {"role": "assistant", "content": answer}), None, f"choice {self.question!r}") for answer in self.answers
        )


@cache
def shipped_choices() -> tuple[Choice, ...]:
    """All of them, in turns by kind, so that the first n are spread over the kinds."""
    file = resources.files("irm_lite.data.shipped") / "choices.jsonl"
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    by_kind: dict[str, list[Choice]] = {}
    for row in rows:
        answers = tuple(row["answer"].replace("{}", each) for each in (row["right"], *row["wrong"]))
        by_kind.setdefault(row["kind"], []).append(Choice(row["kind"], row["question"], answers))
    return tuple(choice for turn in zip(*by_kind.values(), strict=True) for choice in turn)
