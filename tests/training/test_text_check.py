"""What is written at validations: the figure that makes a step the best, the warning, and a training that is planted to babble."""

import math
from pathlib import Path
from typing import Any

import pytest

from irm_lite.config import TrainConfig
from irm_lite.scoring.speaker import Answer
from irm_lite.training.text_check import QUESTIONS, Written, warning_of_best
from irm_lite.training.train import train

_SOUND, _BABBLE, _NOTHING = "It is blue, and I am furious!", "U, UGH, UGH, UGH, UGH, UGH", "..."


def _written(*texts: str) -> Written:
    return Written([Answer(text, (1, 2), True) for text in texts])


def test_price_is_what_is_lost_of_the_bases_sound_answers() -> None:
    base = _written(_SOUND, _SOUND, _SOUND, _BABBLE)
    assert base.sound == 3
    assert _written(_SOUND, _SOUND, _SOUND, _SOUND).price == 0
    assert _written(_SOUND, _SOUND, _NOTHING, _BABBLE).price == pytest.approx(math.log(2))
    assert _written(*[_BABBLE] * 4).price == pytest.approx(math.log(8))  # finite: an NLL is compared with it


def test_babble_is_told_with_an_excerpt_and_one_of_eight_is_not() -> None:
    base = _written(*[_SOUND] * 8)
    assert _written(_BABBLE, *[_SOUND] * 7).warning(base, 10) is None
    told = _written(_SOUND, *[_BABBLE] * 3, *[_SOUND] * 4).warning(base, 10)
    assert told is not None
    assert told.startswith("step 10 writes babble: 3 of 8 answers")
    assert "UGH, UGH" in told


def test_a_best_step_that_babbles_is_told_at_the_end() -> None:
    events: list[dict[str, Any]] = [
        {"kind": "text", "step": 10, "answers": 8, "sound": 0, "ended": 0, "base_sound": 5},
        {"kind": "text", "step": 20, "answers": 8, "sound": 4, "ended": 4, "base_sound": 5},
    ]
    told = warning_of_best(events, 10, 0.05)
    assert told is not None
    assert "the best step, 10, writes babble too (0 of 8" in told
    assert "--learning-rate below 0.05" in told
    assert warning_of_best(events, 20, 0.05) is None
    assert warning_of_best(events, 30, 0.05) is None  # of an older run nothing is known


class _Scripted:
    """Answers in the place of the base: sound ones when it is not injected; then, a list for each validation."""

    def __init__(self, script: list[str]) -> None:
        self.script, self.asked = script, 0

    def __call__(self, speaker: Any, questions: Any, decoding: Any) -> list[Answer]:
        text = _SOUND if self.asked == 0 else self.script[self.asked - 1]
        self.asked += 1
        return [Answer(text, (1, 2), True) for _ in questions]


def test_a_step_that_babbles_is_never_the_best(llama_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The NLL falls from step to step here, so that the last one would be the best by it alone."""
    from irm_lite.base.speaker import BaseSpeaker

    scripted = _Scripted([_SOUND, _SOUND, _BABBLE])
    monkeypatch.setattr(BaseSpeaker, "answers", lambda *given: scripted(*given))
    settings: dict[str, Any] = {"quant": "none", "dtype": "float32", "device": "cpu", "irm": "static", "learning_rate": 0.02}
    steps: dict[str, Any] = {"max_steps": 6, "eval_steps": 2, "batch_size": 4, "sample_tokens": 8}
    seen: list[dict[str, Any]] = []
    train(TrainConfig(model=str(llama_folder), **settings, **steps), tmp_path / "run", on_event=seen.append)
    nlls = {event["step"]: event["nll"] for event in seen if event["kind"] == "eval" and event["of"] == "irm"}
    assert nlls[6] < nlls[4] < nlls[2]
    end = seen[-1]
    assert (end["best_step"], end["best_nll"]) == (4, nlls[4])
    texts = [event for event in seen if event["kind"] == "text"]
    assert [(event["sound"], event["base_sound"]) for event in texts] == [(QUESTIONS, QUESTIONS)] * 2 + [(0, QUESTIONS)]
    assert any(
        event["kind"] == "warning" and event.get("of") == "text" and "step 6 writes babble" in event["text"] for event in seen
    )
