"""What is written at each validation, beside what the base writes: a training must not end in babble that its NLL likes."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from irm_lite.base.load import Base
from irm_lite.base.speaker import BaseSpeaker
from irm_lite.data.encoding import Sample
from irm_lite.runs.events import Event
from irm_lite.scoring.loops import loops, words
from irm_lite.scoring.speaker import Answer, Decoding
from irm_lite.steering.injection import Injection
from irm_lite.training.divergence import lower_rate_hint

QUESTIONS = 8  # side by side in one batch
_TOLD = 0.25  # of the answers lost, beside the base's: one of eight may be chance


@dataclass(frozen=True)
class Written:
    """Greedy answers to validation questions, in their order."""

    answers: list[Answer]

    @property
    def sound(self) -> int:
        """Those that say something and do not go round in circles."""
        return sum(map(_is_sound, self.answers))

    @property
    def ended(self) -> int:
        """Those that came to their end in time."""
        return sum(answer.ended for answer in self.answers)

    def share_lost(self, base: "Written") -> float:
        """How much of the base's sound answers is no longer sound, in [0, 1]; 0 where it had none."""
        return _share_lost(self.sound, base.sound)

    @property
    def price(self) -> float:
        """What a validation NLL is raised by, in nats: -ln of the share that is sound, as if half an answer were left of none. Not
        beside the base's share, which is the same at every step: where the base loops itself, fewer loops are better, too."""
        return -math.log(max(self.sound, 0.5) / len(self.answers))

    def warning(self, base: "Written", step: int) -> str | None:
        """What is to be said of them, in a line; None where nothing is."""
        if self.share_lost(base) <= _TOLD:
            return None
        babble = next(answer.text for answer in self.answers if not _is_sound(answer))
        excerpt = " ".join(babble.split())[:60]
        return (
            f"step {step} writes babble: {len(self.answers) - self.sound} of {len(self.answers)} answers to validation questions "
            f"go round in circles or say nothing, of the base's {len(base.answers) - base.sound} (as {excerpt!r})"
        )


def warning_of_best(events: Iterable[Event], best_step: int | None, learning_rate: float) -> str | None:
    """What is to be said at the end of a training whose best step babbles too; None where it does not. `events`: the run's."""
    texts = [event for event in events if event["kind"] == "text" and event.get("step") == best_step]
    if not texts or _share_lost(texts[-1]["sound"], texts[-1]["base_sound"]) <= _TOLD:
        return None
    sound = f"{texts[-1]['sound']} of {texts[-1]['answers']} answers are sound, of the base's {texts[-1]['base_sound']}"
    return f"the best step, {best_step}, writes babble too ({sound}): {lower_rate_hint(learning_rate)}"


class TextCheck:
    """Asks an injected base the validation questions, again and again. `new_tokens`: of an answer, at most."""

    def __init__(self, base: Base, injection: Injection, validation: Sequence[Sample], new_tokens: int) -> None:
        self.questions = [sample for sample in validation if sample.example.messages][:QUESTIONS]
        self._speaker, self._injection = BaseSpeaker(base), injection
        self._decoding = Decoding("greedy", new_tokens=new_tokens)
        self.base: Written | None = None  # what is written without the IRM
        self.newest: Written | None = None

    def ask(self) -> float:
        """Have the questions answered as the base is injected at the moment; returns what that costs, in nats (Written.price)."""
        if self.base is None:
            with self._injection.paused():
                self.base = self._written()
        self.newest = self._written()
        return self.newest.price

    def _written(self) -> Written:
        return Written(self._speaker.answers(self.questions, self._decoding))


def _share_lost(sound: int, of_base: int) -> float:
    return max(0.0, 1 - sound / of_base) if of_base else 0.0


def _is_sound(answer: Answer) -> bool:
    return bool(words(answer.text)) and not loops(answer.text)
