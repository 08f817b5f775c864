"""Control vectors from activations alone, as repeng and llama.cpp's cvector-generator make them. No loss is seen."""

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import torch

from irm_lite.base.load import Base
from irm_lite.core.types import FloatArray
from irm_lite.data.dataset import Example
from irm_lite.data.encoding import Sample
from irm_lite.steering.control_vector import ControlVector
from irm_lite.vectors.calibration import layer_choices
from steering_methods.arena import Arena
from steering_methods.method import Made, Variant

PERSONA_PAIRS = 80
FEELINGS = {"anger": "furious", "sadness": "deeply sad", "joy": "overjoyed", "neutral": "calm and neutral"}
UNIT = 1 / 16  # strength 1 adds this share of the stream's norm, in the middle of the model, at each layer
POWERS = tuple(2.0**power for power in range(-4, 6))
ALL, MIDDLE = "all", "middle half"  # layers


def of_answers(arena: Arena, seed: int, variant: Variant, held: ExitStack) -> Made:
    """repeng's pca_diff over pairs of answers."""
    return _made(arena, variant, lambda: pca(arena.base, observe_pairs(arena.base, answers(arena.pairs))))


def of_personas(arena: Arena, seed: int, variant: Variant, held: ExitStack) -> Made:
    """repeng's pca_diff over personas in the prompt, as its examples have them."""
    base, asked = arena.base, [neutral.example for _, neutral in arena.pairs[:PERSONA_PAIRS]]
    texts = [(persona(base, arena.data, each), persona(base, "neutral", each)) for each in asked]
    return _made(arena, variant, lambda: pca(base, observe_pairs(base, texts)))


def of_means(arena: Arena, seed: int, variant: Variant, held: ExitStack) -> Made:
    """cvector-generator --method mean, with aligned differences."""
    return _made(arena, variant, lambda: difference_of_means(arena.base, observe_pairs(arena.base, answers(arena.pairs))))


def unnamed(arena: Arena) -> str | None:
    return None if arena.data in FEELINGS else f"no persona is known for {arena.data}"


def _made(arena: Arena, variant: Variant, make: Callable[[], ControlVector]) -> Made:
    """The variant is a choice of layers. One strength for all of them, as the tools have it."""
    started = time.monotonic()
    with arena.dequantised():
        found = make()
    choices = layer_choices(found)
    unit = UNIT * arena.stream_rms * arena.base.hidden_size**0.5
    vector = found.select(choices[2] if variant == MIDDLE and len(choices) > 2 else choices[0]) * unit
    return Made(lambda strength: arena.vector_voice(vector, strength), time.monotonic() - started, strengths=POWERS)


def answers(pairs: list[tuple[Sample, Sample]]) -> list[tuple[list[int], list[int]]]:
    """Without the token that ends the turn: the last one is to be one of the text."""
    return [(toned.ids[:-1], neutral.ids[:-1]) for toned, neutral in pairs]


def persona(base: Base, tone: str, example: Example) -> list[int]:
    """The question asked of a persona, and the first words of the neutral answer, as repeng's examples pair them."""
    messages = [{"role": "user", "content": f"Pretend you are an extremely {FEELINGS[tone]} person. {example.question}"}]
    prompt = str(base.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
    return list(base.tokenizer(prompt + " ".join(example.answer.split()[:6]), add_special_tokens=False)["input_ids"])


@torch.no_grad()
def states(base: Base, ids: list[int]) -> torch.Tensor:
    """Block outputs (L, T, H), float32."""
    found = base.model.model(torch.tensor([ids], device=base.model.device), output_hidden_states=True).hidden_states
    # The last entry has the final norm; a vector there is of no use to llama.cpp's last block, which adds before it.
    return torch.stack([each[0].float() for each in found[1:]]).cpu()


@dataclass
class Pairs:
    """Of pairs of texts: block outputs at each one's last token (N, L, H), and the sum of differences over tokens (L, H)."""

    positive: FloatArray
    negative: FloatArray
    difference: FloatArray


def observe_pairs(base: Base, pairs: list[tuple[list[int], list[int]]]) -> Pairs:
    """Differences are taken token by token over the length that both have: cvector-generator pads the shorter text."""
    positive, negative, total = [], [], torch.zeros(base.n_layers, base.hidden_size)
    for a, b in pairs:
        of_a, of_b, length = states(base, a), states(base, b), min(len(a), len(b))
        positive.append(of_a[:, -1])
        negative.append(of_b[:, -1])
        total += (of_a[:, :length] - of_b[:, :length]).sum(1)
    return Pairs(torch.stack(positive).numpy(), torch.stack(negative).numpy(), total.numpy())


def pca(base: Base, pairs: Pairs) -> ControlVector:
    """repeng's pca_diff: the first principal component of the differences, unit norm, turned towards the positive texts."""
    directions = {}
    for layer in range(1, base.n_layers - 1):
        positive, negative = pairs.positive[:, layer], pairs.negative[:, layer]
        differences = positive - negative
        direction = np.linalg.svd(differences - differences.mean(0), full_matrices=False)[2][0]
        if (positive @ direction < negative @ direction).mean() > 0.5:
            direction = -direction
        directions[layer] = direction.astype(np.float32)
    return ControlVector(directions, base.fingerprint.architecture)


def difference_of_means(base: Base, pairs: Pairs) -> ControlVector:
    """cvector-generator --method mean: the mean difference over all tokens, unit norm."""
    mean = pairs.difference
    directions = {layer: mean[layer] / np.linalg.norm(mean[layer]) for layer in range(1, base.n_layers - 1)}
    return ControlVector(directions, base.fingerprint.architecture)
