"""Speakers in llama.cpp, as the score takes them: one runtime under whatever steering."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from irm_lite.core.types import DoubleArray, Progress, unwatched
from irm_lite.data.encoding import Sample
from irm_lite.llamacpp.parallel import Written, generate_together, nll_together
from irm_lite.llamacpp.sampling import Sampling
from irm_lite.scoring.speaker import Answer, Decoding
from irm_lite.steering.control_vector import ControlVector
from irm_lite.vectors.fidelity.steerings import STEERINGS, Steering, steerable

if TYPE_CHECKING:
    from irm_lite.llamacpp import Runtime


class LlamaCppSpeaker:
    """A runtime that `steer()` steers before each use: several speakers can share one.

    >>> with Runtime(gguf, n_ctx=n_ctx_for(160), n_sequences=SEQUENCES) as runtime:
    ...     base = LlamaCppSpeaker(runtime, lambda: runtime.set_vector(None))
    ...     half = LlamaCppSpeaker(runtime, lambda: runtime.set_vector(vector, 0.5))
    """

    def __init__(self, runtime: "Runtime", steer: Callable[[], object], on_progress: Progress = unwatched) -> None:
        self.runtime = runtime
        self._steer = steer
        self._on_progress = on_progress

    def answers(self, questions: Sequence[Sample], decoding: Decoding) -> list[Answer]:
        self._steer()
        prompts = [sample.ids[: sample.answer_start] for sample in questions]
        sampling = Sampling(decoding.temperature, decoding.seed)
        found = generate_together(self.runtime, prompts, decoding.new_tokens, sampling, self._on_progress, decoding.measured)
        return [self._answer(each) for each in found]

    def nll(self, samples: Sequence[Sample]) -> DoubleArray:
        self._steer()
        return nll_together(self.runtime, samples, self._on_progress)

    def _answer(self, written: Written) -> Answer:
        model, tokens = self.runtime.model, written.tokens
        ended = bool(tokens) and model.ends_turn(tokens[-1])
        said = tokens[:-1] if ended else tokens
        return Answer("".join(model.decode_pieces(said)).strip(), tuple(said), ended, written.nll)


@contextmanager
def speakers(
    runtime: "Runtime", vector: ControlVector, on_progress: Progress = unwatched
) -> Iterator[dict[Steering, LlamaCppSpeaker]]:
    """Base, IRM and vector on one runtime that was made with the IRM. Afterwards it is as it was made."""
    with steerable(runtime, vector) as steered:

        def steering(name: Steering) -> Callable[[], None]:
            return lambda: steered.steer(name)

        yield {name: LlamaCppSpeaker(runtime, steering(name), on_progress) for name in STEERINGS}
