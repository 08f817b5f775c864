"""A setting that does nothing is told, one that does something is not."""

from dataclasses import replace
from typing import Any

import pytest

from irm_lite.config import TrainConfig
from irm_lite.data.encoding import Sample
from irm_lite.data.example import Example
from irm_lite.training.setup.idle_settings import idle_settings

QUESTION = Example(({"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}), None, "row 1")
ASKED, TEXT = Sample([1, 2, 3], 2, QUESTION), Sample([1, 2, 3], 1, Example((), "So.", "row 1"))
WEIGHTED = replace(ASKED, weights=(4.0,))


@pytest.mark.parametrize(
    ("settings", "samples", "steps", "told"),
    [
        ({"rank": 4}, [ASKED], 75, "--rank does nothing: a static IRM has none"),
        ({"rank": 4, "irm": "lora"}, [ASKED], 75, ""),
        ({"width": 64, "irm": "lora"}, [ASKED], 75, "--width does nothing: a lora IRM has none"),
        ({"width": 64, "irm": "lite"}, [ASKED], 75, ""),
        ({"dependence_penalty": 1.0}, [ASKED], 75, "--dependence-penalty does nothing: what a static IRM adds depends on nothing"),
        ({"fact_weight": 8.0}, [ASKED], 75, "--fact-weight does nothing: no training answer has a neutral one"),
        ({"fact_weight": 8.0}, [ASKED, WEIGHTED], 75, ""),
        ({"fact_weight": 4.0, "rank": 16, "loop_penalty": 0.5}, [TEXT], 5, ""),  # as a run of defaults has it in its run.toml
        ({"loop_penalty": 1.0}, [ASKED], 10, "--loop-penalty does nothing: in a training of 10 steps no answers"),
        ({"phrase_penalty": 0.5}, [TEXT], 75, "--phrase-penalty does nothing: in data without questions no answers"),
        ({"phrase_penalty": 0.5}, [ASKED], 11, ""),
        ({}, [TEXT], 5, ""),  # what nobody gave is not told
    ],
)
def test_what_does_nothing_is_told(settings: dict[str, Any], samples: list[Sample], steps: int, told: str) -> None:
    found = list(idle_settings(TrainConfig(**settings), samples, steps))
    assert len(found) == bool(told)
    assert not told or found[0].startswith(told)
