"""What the Trainer trains: a module with the IRM's parameters alone, whose forward is the injected base's loss."""

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from irm_lite.base.architecture import decoder_layers
from irm_lite.base.forward import answers_of, row_of, run_base
from irm_lite.base.heads import head_of
from irm_lite.base.load import Base
from irm_lite.base.padded import held
from irm_lite.config import KINDS
from irm_lite.data.encoding import Sample
from irm_lite.data.packing import Row
from irm_lite.steering.injection import Injection
from irm_lite.steering.irm import IRM
from irm_lite.training.step.answer_loss import answer_nll
from irm_lite.training.step.frozen_prefix import FrozenPrefix, blocks_from
from irm_lite.training.step.own_repeats import Repeat

_AGAIN = 32  # tokens said again whose logits are held at once
LIVE_SECONDS = 2.0  # the live heatmap's snapshot is taken no more often


class InjectedModel(nn.Module):
    """`recompute`: use gradient checkpointing, which the caller has prepared on the base."""

    def __init__(self, base: Base, injection: Injection, l1: float = 0.0, dependence: float = 0.0, recompute: bool = False) -> None:
        super().__init__()
        self.irm = injection.irm
        self._unregistered = (base, injection)  # in a tuple, so that the base is no submodule
        self.prefix = FrozenPrefix(base.model, injection.irm)
        self.l1, self.dependence, self.recompute = l1, dependence, recompute
        self.mean_abs: dict[int, Tensor] = {}  # layer -> (H,), of the newest observed forward
        self._observed_at = -math.inf

    @property
    def base(self) -> Base:
        return self._unregistered[0]

    @property
    def injection(self) -> Injection:
        return self._unregistered[1]

    def forward(self, samples: Sequence[Sample], num_items: float | None = None) -> Tensor:
        """The loss of these samples in one packed row: NLL summed over answer tokens, each by its weight, / num_items, plus the
        penalties, mean over layers: the paper's l1 * sum |v|, mean over tokens, and the share of the output that varies with
        the input.

        `num_items`: the weights of all answer tokens of an optimiser step; penalties are weighted with the row's share.
        """
        norms: dict[int, Tensor] = {}
        self.injection.observers.clear()  # of a forward outside `stepping`
        row = row_of(self.base.model, samples)
        counts = row["counts"].to(self.base.plan.device)
        if self.l1:

            def measure(layer: int, vector: Tensor) -> None:
                norms[layer] = (counts * vector.abs().sum(-1, dtype=torch.float32)[0]).sum() / counts.sum()

            self.injection.observers.append(measure)
        if time.monotonic() - self._observed_at >= LIVE_SECONDS:
            self.injection.observers.append(self._observe)
            self._observed_at = time.monotonic()
        count = sum(sample.weight for sample in samples)
        items = count if num_items is None else num_items
        loss = self._answers_nll(samples, row) / items
        if norms:
            loss = loss + count / items * self.l1 * torch.stack(list(norms.values())).mean()
        if self.dependence:
            loss = loss + count / items * self.dependence * varying_share(*self.irm.moments(self.injection.code, counts)).mean()
        return loss

    @contextmanager
    def stepping(self) -> Iterator[None]:
        """Around a forward with its backward, which may recompute the forward, with the forward's observers: they go at the end."""
        try:
            with self.injection.fed(), held(self.base.model):
                yield
        finally:
            self.injection.observers.clear()

    def release(self) -> None:
        """Free what a forward left in memory whose backward failed."""
        self.injection.code = None

    @torch.no_grad()
    def nll(self, samples: Sequence[Sample]) -> float:
        """NLL in nats, summed over the answer tokens of these samples in one row."""
        self.injection.observers.clear()
        return float(self._answers_nll(samples, row_of(self.base.model, samples)))

    def unlikelihood(self, repeats: Sequence[Repeat]) -> Tensor:
        """-log(1 - p) of the tokens that are said again in these texts, summed over them, in nats."""
        row = row_of(self.base.model, [repeat.sample for repeat in repeats])
        ends = torch.tensor([0, *(repeat.sample.n_answer for repeat in repeats[:-1])]).cumsum(0).tolist()
        places = torch.tensor([end + place for end, repeat in zip(ends, repeats, strict=True) for place in repeat.places])
        head = head_of(self.base.model)
        hidden = self._answer_states([repeat.sample for repeat in repeats], row)[places].to(next(head.parameters()).device)
        again = row["labels"][places].to(hidden.device)[:, None]
        price = unlikelihood(head, hidden, again)
        return price.to(self.base.plan.device)

    def _answers_nll(self, samples: Sequence[Sample], row: Row) -> Tensor:
        hidden = self._answer_states(samples, row)
        return answer_nll(head_of(self.base.model), hidden, row["labels"], row["weights"]).to(self.base.plan.device)

    def _answer_states(self, samples: Sequence[Sample], row: Row) -> Tensor:
        """The injected base's final hidden states (A, H) where the row's answers are predicted."""
        with self.injection.paused():
            states = self.prefix.states(samples, row)
        with self.injection.fed():
            stream = self.injection.feed(states.get("h0"), states.get("stream"), self.prefix.first)
            with blocks_from(self.base.model, self.prefix.first), _recomputed(self.base) if self.recompute else nullcontext():
                return answers_of(run_base(self.base.model, row, stream), row)

    def _observe(self, layer: int, vector: Tensor) -> None:
        self.mean_abs[layer] = vector.detach().abs().mean(dim=(0, 1), dtype=torch.float32).cpu()


def unlikelihood(head: nn.Module, hidden: Tensor, again: Tensor) -> Tensor:
    """-log(1 - p) of the tokens `again` (A, 1), summed, in nats; `hidden` (A, H) are the final states that predict them. The logits
    of all are never held together: 24 bytes for each in the backward pass."""
    parts = zip(torch.split(hidden, _AGAIN), torch.split(again, _AGAIN), strict=True)
    prices = [checkpoint(_price, head, part, tokens, use_reentrant=False, preserve_rng_state=False) for part, tokens in parts]
    return torch.stack(prices).sum()


def _price(head: nn.Module, hidden: Tensor, again: Tensor) -> Tensor:
    logits = head(hidden).float()
    others = logits.scatter(1, again, -torch.inf)  # 1 - p is theirs: without a difference of numbers that are nearly equal
    price: Tensor = (logits.logsumexp(1) - others.logsumexp(1)).sum()
    return price


def compute_dtype(base: Base, irm: IRM) -> torch.dtype | None:
    """The number format of the IRM's products: the base's for the paper's IRM, which costs as much as the base; None, that of its
    weights, for the others."""
    halved = base.model.dtype == torch.bfloat16 and KINDS[irm.kind].large
    return torch.bfloat16 if halved else None


def varying_share(means: Tensor, spreads: Tensor) -> Tensor:
    """How much of an IRM's output depends on the input: for means (L, H) and mean squared distances from them (L,), the shares (L,)
    that the distances have in the mean squared norm. 0: the same output everywhere.

    Outputs too small to have any effect (squared norm 1e-4) count as not varying, since training starts at zero.
    """
    return spreads / (means.square().sum(-1) + spreads + 1e-4)


@contextmanager
def _recomputed(base: Base) -> Iterator[Any]:
    """Gradient checkpointing for this forward: transformers looks at the blocks' own training flag, the modules inside
    stay in eval mode. Off outside, since with it on transformers drops the KV cache that generation needs."""
    blocks = decoder_layers(base.model)
    for block in blocks:
        block.training = True
    try:
        yield
    finally:
        for block in blocks:
            block.training = False
