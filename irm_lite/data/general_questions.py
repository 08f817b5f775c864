"""Shipped questions without answers, to see what a model writes to what nothing was learned of. Imports no torch."""

from functools import cache
from importlib import resources


@cache
def general_questions() -> tuple[str, ...]:
    """All of them; none is in the shipped tones or among the choices."""
    text = (resources.files("irm_lite.data.shipped") / "questions.txt").read_text(encoding="utf-8")
    return tuple(line for line in text.splitlines() if line)
