"""What the closed form is fitted on and measured on: answers that a steered model gives."""

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING

from irm_lite.core.errors import BaseModelError, InputError
from irm_lite.core.types import Progress, unwatched
from irm_lite.data.dataset import Example, load_dataset
from irm_lite.data.encoding import Sample, encode_prompt
from irm_lite.llamacpp.parallel import generate_together
from irm_lite.steering.control_vector import ControlVector

if TYPE_CHECKING:
    from irm_lite.base.load import Base
    from irm_lite.llamacpp import Runtime

QUESTIONS = 64  # that a steered model answers where there is no run whose answers are at hand
NEW_TOKENS = 40
FIT_TOKENS = 4096  # of a run's training answers, about
_ANSWERED_AT = (1.0, 0.5, 1.0, 0.0)  # strengths at which it answers, in turn


def training_answers(samples: Sequence[Sample], seed: int = 0) -> list[Sample]:
    """Training samples in random order, some thousand tokens: what the steered model says, and nothing has to be written."""
    if len(samples) < 4:
        raise InputError(f"{len(samples)} training samples are too few to fit an adapter on", "train on four at least")
    chosen: list[Sample] = []
    for sample in random.Random(seed).sample(list(samples), len(samples)):
        chosen.append(sample)
        if len(chosen) >= 4 and sum(len(each.ids) for each in chosen) >= FIT_TOKENS:
            break
    return chosen


def questions(count: int) -> list[Example]:
    """Everyday questions of the shipped data."""
    examples = [each for each in load_dataset("neutral").train if each.question]
    return random.Random(0).sample(examples, min(count, len(examples)))


def answered_in_llamacpp(runtime: "Runtime", vector: ControlVector, on_progress: Progress = unwatched) -> list[Sample]:
    """The model's own answers to everyday questions, at several strengths of the vector. A model without a chat template goes on
    with the question itself."""
    asked = questions(QUESTIONS)
    prompts = []
    for each in asked:
        try:
            prompts.append(runtime.encode_prompt([{"role": "user", "content": each.question}]))
        except BaseModelError:
            prompts.append(runtime.model.vocabulary.tokenize_prompt(each.question))
    written: dict[int, list[int]] = {}
    for place, strength in enumerate(_ANSWERED_AT):
        runtime.set_vector(vector, strength)
        numbers = range(place, len(asked), len(_ANSWERED_AT))
        found = generate_together(runtime, [prompts[number] for number in numbers], NEW_TOKENS)
        written |= {number: each.tokens for number, each in zip(numbers, found, strict=True)}
        on_progress(place + 1, len(_ANSWERED_AT), "asking the model")
    return _samples(asked, prompts, [written[number] for number in range(len(asked))])


def answered_in_transformers(base: "Base", vector: ControlVector, on_progress: Progress = unwatched) -> list[Sample]:
    """The same by a base in transformers."""
    from irm_lite.base.generate import generate_ids
    from irm_lite.steering.injection import inject

    asked = questions(QUESTIONS)
    prompts = [encode_prompt(base.tokenizer, ({"role": "user", "content": each.question},)) for each in asked]
    written: dict[int, list[int]] = {}
    with inject(base.model, vector) as injection:
        for place, injection.strength in enumerate(_ANSWERED_AT):
            numbers = range(place, len(asked), len(_ANSWERED_AT))
            found = generate_ids(base, [prompts[number] for number in numbers], NEW_TOKENS)
            written |= dict(zip(numbers, found, strict=True))
            on_progress(place + 1, len(_ANSWERED_AT), "asking the model")
    return _samples(asked, prompts, [written[number] for number in range(len(asked))])


def _samples(asked: Sequence[Example], prompts: Sequence[list[int]], answers: Sequence[list[int]]) -> list[Sample]:
    together = zip(asked, prompts, answers, strict=True)
    return [Sample([*prompt, *answer], len(prompt), example) for example, prompt, answer in together if answer]
