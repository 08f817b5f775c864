"""How a method is measured: its variant and strength chosen on validation, the score taken on the test questions."""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from irm_lite.core.log_probabilities import kl
from irm_lite.data.encoding import Sample
from irm_lite.scoring.hearing import DECODINGS, GREEDY, Heard, hear
from irm_lite.scoring.score import Score
from irm_lite.scoring.score import score as score_of
from steering_methods.arena import Arena, Place, Split, Voice
from steering_methods.method import Made, Method, Variant
from steering_methods.store import Result, Store, Try

SIDE_EFFECT_ON = 24  # neutral answers: their log-probabilities are held


@dataclass
class Judge:
    """What the unsteered base says is heard once, and kept in the store."""

    arena: Arena
    store: Store
    say: Callable[[str], None]

    def __post_init__(self) -> None:
        self._log_probabilities: dict[Place, list[Tensor]] = {}

    def base_heard(self, place: Place, split: Split) -> Heard:
        kept = self.store.heard(place, split)
        if kept is None:
            self.say(f"the base in {place}, {split} questions")
            voice = self.arena.base_voice(place).speaker
            decodings = DECODINGS if split == "test" else (GREEDY,)
            with ExitStack() as held:
                if place == "transformers":
                    held.enter_context(self.arena.dequantised())
                kept = hear(voice, voice, self.arena.materials[split], decodings)
            self.store.keep_heard(place, split, kept)
        return kept

    def base_answers(self, place: Place) -> list[Tensor]:
        """The base's log-probabilities (A, V) of neutral test answers."""
        if place not in self._log_probabilities:
            voice = self.arena.base_voice(place)
            self._log_probabilities[place] = [voice.log_probabilities(each) for each in self._neutral()]
        return self._log_probabilities[place]

    def _neutral(self) -> Sequence[Sample]:
        return self.arena.materials["test"].neutral[:SIDE_EFFECT_ON]

    def scored(self, voice: Voice, place: Place, split: Split) -> tuple[Score, float]:
        """The score, and the NLL of the tone's answers, nats a token. On validation texts are greedy alone."""
        material = self.arena.materials[split]
        before = self.base_heard(place, split)
        decodings = DECODINGS if split == "test" else (GREEDY,)
        heard = hear(voice.speaker, self.arena.base_voice(place).speaker, material, decodings)
        return score_of(heard, before, material), nll_of(heard)

    def side_effect(self, voice: Voice, place: Place) -> float | None:
        """KL(base || steered) on neutral test answers, nats a token; None where there are none."""
        found = [
            kl(before, voice.log_probabilities(sample)).numpy()
            for sample, before in zip(self._neutral(), self.base_answers(place), strict=True)
        ]
        return float(np.concatenate(found).mean()) if found else None

    def tried(self, method: Method, made: Made, of: tuple[int, Variant], strength: float) -> Try:
        """On validation; `of` is the seed and the variant. What the store knows is not measured again."""
        seed, variant = of
        known = [each for each in self.store.tries(method.name) if (each.seed, each.variant, each.strength) == (*of, strength)]
        if known:
            return known[0]
        score, nll = self.scored(made.at(strength), made.place, "validation")
        found = Try(seed, variant, strength, score.value or 0.0, nll)
        self.store.keep_try(method.name, found)
        self.say(f"  {method.name} {variant} at strength {strength:g}: {found.score:.2f}, NLL {nll:.3f}")
        return found


def nll_of(heard: Heard) -> float:
    tokens, nll = heard.toned.sum(0)
    return float(nll / tokens)


def better(a: Try, b: Try) -> bool:
    """By the score; where that says nothing, as among those that do not steer yet or babble, by the NLL of the tone's answers."""
    return (round(a.score, 6), -a.nll) > (round(b.score, 6), -b.nll)


def climb(strengths: Sequence[float], start: float, try_at: Callable[[float], Try]) -> list[Try]:
    """From `start` upwards as long as it gets better, else downwards: all that was tried, the best among them a local one."""
    at = strengths.index(start)
    tries = [try_at(start)]
    for step in (1, -1):
        best, place = tries[0], at + step
        while 0 <= place < len(strengths):
            tries.append(try_at(strengths[place]))
            if not better(tries[-1], best):
                break
            best, place = tries[-1], place + step
        if best is not tries[0]:
            break
    return tries


def best_of(tries: Sequence[Try]) -> Try:
    found = tries[0]
    for each in tries[1:]:
        found = each if better(each, found) else found
    return found


def choose_variant(judge: Judge, method: Method, seed: int, most: int | None) -> Variant:
    """The one that was chosen before, or the best on validation among the first `most`."""
    chosen = judge.store.variant(method.name) or (judge.store.variant(method.follows) if method.follows else None)
    variants = method.variants(judge.arena)[:most]
    if chosen is not None or len(variants) == 1:
        return variants[0] if chosen is None else chosen
    for variant in variants:
        if not method.searched and any(each.variant == variant for each in judge.store.tries(method.name)):
            continue
        with ExitStack() as held:
            made = method.make(judge.arena, seed, variant, held)
            climb(made.strengths if method.searched else (made.start,), made.start, trier(judge, method, made, (seed, variant)))
    return best_of([each for each in judge.store.tries(method.name) if each.variant in variants]).variant


def trier(judge: Judge, method: Method, made: Made, of: tuple[int, Variant]) -> Callable[[float], Try]:
    return lambda strength: judge.tried(method, made, of, strength)


def choose_strength(judge: Judge, method: Method, made: Made, of: tuple[int, Variant]) -> float:
    """The one that the method's first training was measured at, or the best on validation."""
    if len(made.strengths) == 1:
        return made.start
    chosen = judge.store.strength(method.name)
    return best_of(climb(made.strengths, made.start, trier(judge, method, made, of))).strength if chosen is None else chosen


def measure(judge: Judge, method: Method, seed: int, most_variants: int | None = None) -> Result:
    """Choose a variant, train, choose a strength, score: what is chosen, once for all seeds."""
    began = time.monotonic()
    variant = choose_variant(judge, method, seed, most_variants)
    with ExitStack() as held:
        made = method.make(judge.arena, seed, variant, held)
        has_strengths = len(made.strengths) > 1
        strength = choose_strength(judge, method, made, (seed, variant))
        voice = made.at(strength)
        score, nll = judge.scored(voice, made.place, "test")
        side_effect = judge.side_effect(voice, made.place)
    return Result(
        method=method.name,
        seed=seed,
        variant=variant,
        strength=strength if has_strengths else None,
        place=made.place,
        seconds=made.seconds,
        parameters=made.parameters,
        score=score,
        nll=nll,
        side_effect=side_effect,
        whole_seconds=time.monotonic() - began,
        losses=made.losses,
    )
