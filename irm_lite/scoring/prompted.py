"""The plainest steering, to compare with: a system prompt."""

from collections.abc import Callable, Sequence

from irm_lite.core.types import DoubleArray
from irm_lite.data.dataset import Example, Message
from irm_lite.data.encoding import Sample
from irm_lite.scoring.speaker import Answer, Decoding, Speaker


class Prompted:
    """A speaker that is told something before each question: messages of the system, or examples as turns of both sides."""

    def __init__(self, speaker: Speaker, before: Sequence[Message], encode: Callable[[Example], Sample]) -> None:
        self._speaker = speaker
        self._before = tuple(before)
        self._encode = encode

    def answers(self, questions: Sequence[Sample], decoding: Decoding) -> list[Answer]:
        return self._speaker.answers([self._told(each) for each in questions], decoding)

    def nll(self, samples: Sequence[Sample]) -> DoubleArray:
        return self._speaker.nll([self._told(each) for each in samples])

    def _told(self, sample: Sample) -> Sample:
        example = sample.example
        return self._encode(Example((*self._before, *example.messages), example.text, example.where))
