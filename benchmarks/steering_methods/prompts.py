"""The system prompt, plain or with examples, in llama.cpp. What is tried on validation is the phrasing."""

from collections.abc import Sequence
from contextlib import ExitStack

from torch import Tensor

from irm_lite.data.dataset import Example, Message
from irm_lite.data.encoding import Sample
from irm_lite.scoring.prompted import Prompted
from steering_methods.activations import FEELINGS
from steering_methods.arena import Arena, Voice
from steering_methods.method import Made, Variant

PHRASINGS = (
    "You are {feeling}. Answer every question in one or two short sentences that give the right answer and show it.",
    "You are {feeling}.",
    "Pretend you are an extremely {feeling} person. Every sentence that you say must show it, and the facts must be right.",
)
SHOWN = "Answer in the same tone as in your answers so far."  # of data whose tone has no name


def phrasings(arena: Arena) -> tuple[str, ...]:
    """The prompts that can be tried on these data: the user's own alone, where one was given."""
    feeling = FEELINGS.get(arena.data) if arena.data != "neutral" else None
    return (arena.prompt,) if arena.prompt else tuple(each.format(feeling=feeling) for each in PHRASINGS) if feeling else ()


def unnamed(arena: Arena) -> str | None:
    return None if phrasings(arena) else f"no system prompt is known for {arena.data}: give one with --prompt"


def plain(arena: Arena, seed: int, variant: Variant, held: ExitStack) -> Made:
    return _made(arena, [{"role": "system", "content": str(variant)}])


def with_examples(arena: Arena, seed: int, variant: Variant, held: ExitStack) -> Made:
    """Three training answers, drawn by the seed, as turns before the question."""
    turns = [message for example in arena.examples(seed) for message in example.messages if message["role"] != "system"]
    return _made(arena, [{"role": "system", "content": str(variant)}, *turns])


def _made(arena: Arena, before: Sequence[Message]) -> Made:
    base = arena.base_voice("llama.cpp")

    def told(sample: Sample) -> Sample:
        example = sample.example
        return arena.encoder(Example((*before, *example.messages), example.text, example.where))

    def log_probabilities(sample: Sample) -> Tensor:
        return base.log_probabilities(told(sample))

    voice = Voice(Prompted(base.speaker, before, arena.encoder), log_probabilities)
    return Made(lambda strength: voice, strengths=(1.0,))
