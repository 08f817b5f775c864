"""One speaker on the material: what it writes, and its NLLs. Everything that costs time is here, and nothing is judged."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from irm_lite.core.types import DoubleArray
from irm_lite.data.encoding import Sample
from irm_lite.scoring.material import Material
from irm_lite.scoring.speaker import Answer, Decoding, Speaker

GREEDY = Decoding("greedy")
SAMPLED = Decoding("sampled", temperature=0.8)  # llama.cpp's own default
DECODINGS = (GREEDY, SAMPLED)


@dataclass(frozen=True)
class Heard:
    """A speaker's answers and NLLs. NLL arrays hold tokens and sums in nats, as the last axis."""

    answers: dict[str, list[Answer]]  # by decoding, each in the order of the asked questions
    own: dict[str, DoubleArray]  # (N, 2) by decoding: the base's NLL of those answers
    toned: DoubleArray  # (Q, 2)
    neutral: DoubleArray  # (Q, 2), or (0, 2) where there are none
    distractors: list[DoubleArray] = field(default_factory=list)  # Q times (K, 2)
    choices: list[DoubleArray] = field(default_factory=list)  # C times (4, 2)


def hear(speaker: Speaker, base: Speaker, material: Material, decodings: Sequence[Decoding] = DECODINGS) -> Heard:
    """Ask one speaker everything; `base` is the same model without steering."""
    measured = speaker is base  # what it writes brings its NLL
    asked = [replace(each, new_tokens=material.new_tokens, seed=material.seed, measured=measured) for each in decodings]
    answers = {each.name: speaker.answers(material.toned, each) if material.toned else [] for each in asked}
    own = _own(base, material.toned, answers)
    # One question's answers stand together: what they share is gone through once.
    together: list[list[Sample]] = [[each] for each in material.toned]
    if material.neutral:
        together = [
            [toned, plain, *wrong]
            for toned, plain, wrong in zip(material.toned, material.neutral, material.distractors, strict=True)
        ]
    found = _nll_in_groups(speaker, [*together, *material.choices])
    by_question, choices = found[: len(together)], found[len(together) :]
    return Heard(
        answers,
        own,
        np.array([each[0] for each in by_question]).reshape(-1, 2),
        np.array([each[1] for each in by_question if len(each) > 1]).reshape(-1, 2),
        [each[2:] for each in by_question if len(each) > 1],
        choices,
    )


def _own(base: Speaker, asked: Sequence[Sample], answers: Mapping[str, Sequence[Answer]]) -> dict[str, DoubleArray]:
    """By decoding (N, 2): the base's NLL of what was written, without the end of the turn; zeros where nothing was."""
    found = {
        name: np.array([(len(each.ids), each.nll or 0.0) for each in written]).reshape(-1, 2) for name, written in answers.items()
    }
    # One question's answers stand together, as above; what the base wrote itself brings its NLL with it.
    places = [(name, at) for at in range(len(asked)) for name in answers if answers[name][at].ids and answers[name][at].nll is None]
    written = [
        Sample([*_prompt(asked[at]), *answers[name][at].ids], asked[at].answer_start, asked[at].example) for name, at in places
    ]
    for (name, at), nll in zip(places, base.nll(written) if written else (), strict=True):
        found[name][at] = nll
    return found


def _prompt(sample: Sample) -> list[int]:
    return sample.ids[: sample.answer_start]


def _nll_in_groups(speaker: Speaker, groups: Sequence[Sequence[Sample]]) -> list[DoubleArray]:
    flat = [sample for group in groups for sample in group]
    found = speaker.nll(flat) if flat else np.empty((0, 2))
    return np.split(found, np.cumsum([len(group) for group in groups])[:-1]) if groups else []
