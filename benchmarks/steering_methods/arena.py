"""What all methods share: one base in both runtimes, one split of the data, the same questions, and how a steering is heard."""

import random
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from irm_lite.base.architecture import decoder_layers
from irm_lite.base.forward import answer_logits
from irm_lite.base.load import Base, load_base
from irm_lite.base.speaker import BaseSpeaker
from irm_lite.core.errors import DataError, InputError
from irm_lite.data.choices import shipped_choices
from irm_lite.data.dataset import Dataset, Example, load_dataset
from irm_lite.data.encoding import Sample, encode, encode_all
from irm_lite.data.packing import pack
from irm_lite.llamacpp import Runtime
from irm_lite.llamacpp.likelihood import llamacpp_log_probabilities
from irm_lite.llamacpp.model import Model
from irm_lite.llamacpp.parallel import SEQUENCES, n_ctx_for
from irm_lite.scoring.material import Extent, Material, gather
from irm_lite.scoring.speaker import Speaker
from irm_lite.steering.control_vector import ControlVector
from irm_lite.steering.irm import IRM
from irm_lite.training.step.dequantised import dequantised_once
from irm_lite.vectors.scored import encoder, room_for
from irm_lite.vectors.speakers import LlamaCppSpeaker

Place = Literal["llama.cpp", "transformers"]
Split = Literal["validation", "test"]
MAX_LENGTH = 512  # tokens; longer samples are left out for all
BATCH_SIZE = 8  # samples a step; of a method that learns from pairs, pairs
CHOOSING_QUESTIONS = 20  # of the validation split, on which strengths and rates are chosen
CHOOSING_CHOICES = 24  # the last ones that are shipped, which the test then leaves out
EXAMPLES = 3  # training answers that a prompt shows


@dataclass(frozen=True)
class Extents:
    """How much is measured: test questions (None: all), choices at most, optimiser steps of a training."""

    questions: int | None = None
    choices: int = 108
    steps: int = 100
    new_tokens: int | None = None


@dataclass(frozen=True)
class Voice:
    """A steering at one strength: what it says, and its log-probabilities (A, V) of a sample's answer."""

    speaker: Speaker
    log_probabilities: Callable[[Sample], Tensor]


class Arena:
    """Everything is made at its first use and kept. Raises InputError where the base is no .gguf or the data ask nothing."""

    def __init__(self, model: str, data: str, extents: Extents, work: Path, prompt: str | None = None) -> None:
        self.model, self.data, self.extents, self.work, self.prompt = model, data, extents, work, prompt
        self.dataset: Dataset = load_dataset(data)
        self.base: Base = load_base(model)
        if self.base.gguf_path is None:
            raise InputError(f"{model} is not a .gguf", "give demo or a .gguf file: methods are scored in llama.cpp")
        self.gguf: Path = self.base.gguf_path
        self.encode = encoder(self.base.tokenizer, MAX_LENGTH)
        self.samples = encode_all(self.base.tokenizer, self.dataset.train, MAX_LENGTH)[0]
        if not self.samples:
            raise DataError(f"{data} has no training sample of at most {MAX_LENGTH} tokens", "give more or shorter rows")
        trained = gather(data, self.dataset, self.samples, self.encode, extent=Extent(None))
        # Pairs of the same samples, since what is kept of one is found by its identity.
        self.pairs = list(zip(trained.toned, trained.neutral, strict=False))
        self.materials: dict[Split, Material] = {
            "validation": self._material(self.dataset.validation or self.dataset.test, "validation"),
            "test": self._material(self.dataset.test or self.dataset.validation, "test"),
        }
        if not self.materials["test"].toned or not self.materials["validation"].toned:
            raise DataError(f"{data} asks no questions", "give rows of a question and an answer")

    def _material(self, examples: list[Example], split: Split) -> Material:
        """Strengths are chosen on other choices than are counted: validation has the last of the shipped ones."""
        test = split == "test"
        held_out = encode_all(self.base.tokenizer, examples, MAX_LENGTH)[0]
        questions = self.extents.questions if test else min(CHOOSING_QUESTIONS, self.extents.questions or CHOOSING_QUESTIONS)
        found = gather(self.data, self.dataset, held_out, self.encode, extent=Extent(questions, self.extents.new_tokens))
        choices = [[self.encode(each) for each in choice.examples] for choice in shipped_choices()]
        every = [whole for answers in choices if len(whole := [each for each in answers if each]) == len(answers)]
        own = every[:-CHOOSING_CHOICES][: self.extents.choices] if test else every[-CHOOSING_CHOICES:][: self.extents.choices]
        return replace(found, choices=own)

    @property
    def encoder(self) -> Callable[[Example], Sample]:
        return lambda example: encode(self.base.tokenizer, example)

    @property
    def layer(self) -> int:
        """The block that methods of one layer use: the middle one, as BiPO has it (15 of 32) and AxBench nearly (10 of 26)."""
        return max(1, self.base.n_layers // 2)

    @cached_property
    def stream_rms(self) -> float:
        """Of an entry of that block's output, the median over tokens. A first token's, a thousand times as large, is left out."""
        found = []
        for sample in self.samples[:16]:
            ids = torch.tensor([sample.ids], device=self.base.model.device)
            with torch.no_grad():
                states = self.base.model.model(ids, output_hidden_states=True, use_cache=False).hidden_states
            found.append(states[self.layer + 1][0, 1:].float().square().mean(-1).sqrt())
        return float(torch.cat(found).median())

    @cached_property
    def llama(self) -> Model:
        return Model(self.gguf)

    @cached_property
    def runtime(self) -> Runtime:
        """The one that vectors and prompts are heard in."""
        return self.new_runtime()

    def new_runtime(self, irm: IRM | None = None) -> Runtime:
        return Runtime(self.llama, irm=irm, n_ctx=n_ctx_for(self.longest), n_sequences=SEQUENCES)

    @property
    def longest(self) -> int:
        """Tokens of the longest text, with a prompt of examples before it."""
        shown = sorted(len(each.ids) for each in self.samples)[-EXAMPLES:]
        return max(map(room_for, self.materials.values())) + sum(shown) + 128

    def examples(self, seed: int) -> list[Example]:
        """Training answers to show in a prompt."""
        return [each.example for each in random.Random(seed).sample(self.samples, min(EXAMPLES, len(self.samples)))]

    def base_voice(self, place: Place) -> Voice:
        return self.vector_voice(None) if place == "llama.cpp" else self.own_voice(BaseSpeaker(self.base))

    def vector_voice(self, vector: ControlVector | None, strength: float = 1.0) -> Voice:
        """The base in llama.cpp under a control vector."""
        return runtime_voice(self.runtime, lambda: self.runtime.set_vector(vector, strength))

    def own_voice(self, speaker: BaseSpeaker) -> Voice:
        """The base in transformers under what the speaker injects."""

        @torch.no_grad()
        def log_probabilities(sample: Sample) -> Tensor:
            with speaker._injected():
                return F.log_softmax(answer_logits(self.base.model, pack([sample])).float(), dim=-1).cpu()

        return Voice(speaker, log_probabilities)

    def dequantised(self) -> AbstractContextManager[None]:
        """Within: the 4-bit weights are dequantised once. No training by irm_lite's `train` may be inside: it does so too."""
        return dequantised_once(decoder_layers(self.base.model))

    def close(self) -> None:
        for name in ("runtime", "llama"):
            if name in self.__dict__:
                self.__dict__.pop(name).close()


def runtime_voice(runtime: Runtime, steer: Callable[[], object]) -> Voice:
    """A runtime that `steer()` steers before each use."""

    def log_probabilities(sample: Sample) -> Tensor:
        steer()
        return llamacpp_log_probabilities(runtime, sample)

    return Voice(LlamaCppSpeaker(runtime, steer), log_probabilities)
