"""LoReFT of rank 4 (Wu et al. 2024, arXiv 2404.03592): h + R^T (W h + b - R h), R with orthonormal rows, by hooks.

As its paper's instruction tuning and AxBench have it: at the first five and the last five positions of the prompt alone, each
layer with an edit of its own; here at four layers, a fifth of the model apart. Scored in transformers: llama.cpp has no such edit.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import orthogonal

from irm_lite.base.architecture import decoder_layers, hidden_state, with_hidden_state
from irm_lite.base.forward import answer_hidden, answer_logits
from irm_lite.base.heads import head_of
from irm_lite.base.load import Base
from irm_lite.base.speaker import BaseSpeaker
from irm_lite.core.types import DoubleArray
from irm_lite.data.encoding import Sample
from irm_lite.data.packing import pack
from irm_lite.scoring.speaker import Answer, Decoding
from irm_lite.training.step.answer_loss import answer_nll
from steering_methods.arena import Arena, Voice
from steering_methods.fitting import batches, fit
from steering_methods.method import Made, Variant

RANK = 4
FIRST, LAST = 5, 5  # positions of the prompt
SIDE_BY_SIDE = 16  # as many as BaseSpeaker writes at once


class LoReft(nn.Module):
    """One layer's edit. It starts as pyreft's: R a random orthonormal basis, W and b as nn.Linear has them."""

    def __init__(self, hidden_size: int, rank: int = RANK) -> None:
        super().__init__()
        self.rotation = orthogonal(nn.Linear(hidden_size, rank, bias=False))
        self.source = nn.Linear(hidden_size, rank)  # W, b

    @property
    def basis(self) -> Tensor:
        """R (rank, H)."""
        basis: Tensor = self.rotation.weight  # type: ignore[assignment]
        return basis

    def forward(self, hidden: Tensor) -> Tensor:
        """What is added to hidden states (..., H)."""
        basis = self.basis  # it is made orthonormal at each look
        found: Tensor = (self.source(hidden) - F.linear(hidden, basis)) @ basis
        return found


class Edits:
    """The edits of several blocks' outputs. `at` puts them into the model, at positions of the next forwards' first."""

    def __init__(self, base: Base, layers: Sequence[int], seed: int) -> None:
        self.model = base.model
        torch.manual_seed(seed)
        self.by_layer = {layer: LoReft(base.hidden_size).to(base.model.device) for layer in layers}

    def parameters(self) -> list[Tensor]:
        return [each for edit in self.by_layer.values() for each in edit.parameters()]

    @property
    def count(self) -> int:
        return sum(each.numel() for each in self.parameters())

    @contextmanager
    def at(self, mask: Tensor, strength: float = 1.0) -> Iterator[None]:
        """Within: `strength` times the edit is added where the mask (B, T) is. Forwards of another length, as those of a cache that
        goes on, are left as they are."""
        blocks = decoder_layers(self.model)
        handles = [blocks[layer].register_forward_hook(self._hook(edit, mask, strength)) for layer, edit in self.by_layer.items()]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _hook(self, edit: LoReft, mask: Tensor, strength: float) -> Callable[..., object]:
        def hook(_module: nn.Module, _args: object, output: object) -> object:
            hidden = hidden_state(output)
            if hidden.shape[:2] != mask.shape:
                return output
            place = mask.to(hidden.device)
            changed = hidden.clone()
            chosen = hidden[place].float()
            changed[place] = (chosen + strength * edit(chosen)).to(hidden)
            return with_hidden_state(output, changed)

        return hook


def packed_positions(samples: Sequence[Sample]) -> Tensor:
    """(1, T) of the packed row: the first and the last positions of each prompt."""
    return torch.tensor([[each for sample in samples for each in _of_prompt(sample.answer_start, len(sample.ids))]])


def padded_positions(samples: Sequence[Sample]) -> Tensor:
    """(B, T) of the prompts alone, padded on the left."""
    longest = max(sample.answer_start for sample in samples)
    return torch.tensor(
        [[False] * (longest - each.answer_start) + _of_prompt(each.answer_start, each.answer_start) for each in samples]
    )


def _of_prompt(prompt: int, length: int) -> list[bool]:
    return [at < prompt and (at < FIRST or at >= prompt - LAST) for at in range(length)]


class LoReftSpeaker:
    """The base under its edits."""

    def __init__(self, base: Base, edits: Edits, strength: float) -> None:
        self._plain, self._edits, self._strength = BaseSpeaker(base), edits, strength

    def answers(self, questions: Sequence[Sample], decoding: Decoding) -> list[Answer]:
        found: list[Answer] = []
        for at in range(0, len(questions), SIDE_BY_SIDE):
            some = questions[at : at + SIDE_BY_SIDE]
            with self._edits.at(padded_positions(some), self._strength):
                found += self._plain.answers(some, replace(decoding, seed=decoding.seed + at))
        return found

    def nll(self, samples: Sequence[Sample]) -> DoubleArray:
        found = [np.empty((0, 2))]
        for sample in samples:  # each alone: a row of several has what they share once, at places of its own
            with self._edits.at(packed_positions([sample]), self._strength):
                found.append(self._plain.nll([sample]))
        return np.concatenate(found)


def loreft(arena: Arena, seed: int, variant: Variant, held: ExitStack) -> Made:
    """LM loss of the tone's answers."""
    started, steps = time.monotonic(), arena.extents.steps
    base = arena.base
    held.enter_context(arena.dequantised())
    layers = sorted({max(1, base.n_layers * part // 5) for part in range(1, 5)})
    edits = Edits(base, layers, seed)
    head = head_of(base.model)

    def loss(batch: list[Sample]) -> Tensor:
        row = pack(batch)
        with edits.at(packed_positions(batch)):
            return answer_nll(head, answer_hidden(base.model, row), row["labels"], row["weights"]) / len(row["labels"])

    losses = fit(edits.parameters(), batches(arena.samples, steps, seed), loss, steps, float(variant))
    seconds = time.monotonic() - started

    def voice(strength: float) -> Voice:
        @torch.no_grad()
        def log_probabilities(sample: Sample) -> Tensor:
            with edits.at(packed_positions([sample]), strength):
                return F.log_softmax(answer_logits(base.model, pack([sample])).float(), dim=-1).cpu()

        return Voice(LoReftSpeaker(base, edits, strength), log_probabilities)

    return Made(voice, seconds, edits.count, "transformers", losses=losses)
