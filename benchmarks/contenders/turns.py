"""A contender's side of the turns: wait on a pipe, train some steps, say what they took.

One JSON object a line each way. Out: {"ready"} once, then one object a turn. In: any line starts a turn; the end of the
pipe ends the contender.
"""

import json
import time
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any, TextIO

import torch

from contenders.flops import Weights
from contenders.samples import epochs, real_tokens, supervised_tokens
from contenders.task import BATCH_SIZE, SEED, Task
from irm_lite.base.load import Base
from irm_lite.core.errors import RunError
from irm_lite.core.machine.device import probe
from irm_lite.core.machine.memory import peak_bytes, reset_peak
from irm_lite.data.encoding import Sample
from irm_lite.training.nll import mean_nll


class Over(Exception):
    """All turns are done, or the parent is gone: it ends the training from inside its last step."""


class Turns:
    """A stopwatch that the parent starts, and that stops itself after every so many optimiser steps."""

    def __init__(
        self,
        task: Task,
        base: Base,
        train: Sequence[Sample],
        validation: Sequence[Sample],
        max_steps: int,
        orders: TextIO,
        out: TextIO,
    ) -> None:
        self.task, self.base, self.validation, self.max_steps = task, base, validation, max_steps
        self.limit = 128 if task.name == "paper" else max(len(sample.ids) for sample in train)
        self.batches: Iterator[list[Sample]] = chain.from_iterable(epochs(train, BATCH_SIZE, SEED))
        self.weights = Weights.of(base.model)
        self.device = base.plan.device
        self.orders, self.out = orders, out
        self.trained = self.done = self.peak = 0
        self.load_peak = peak_bytes(self.device)
        self.cleared = reset_peak(self.device)

    def begin(self, trained: int) -> None:
        """Right before the first step of a network with so many trained parameters."""
        self.trained = trained
        self.say(
            ready=True,
            device=torch.cuda.get_device_name() if self.device == "cuda" else self.device,
            dtype=self.base.plan.dtype,
            bfloat16=probe().cpu_bf16,
            trained_parameters=trained,
            max_steps=self.max_steps,
            load_peak=self.load_peak if self.cleared else None,
            nll=self._nll() if self.task.to_nll else None,
        )
        self._wait()

    def step(self, tokens: int) -> None:
        """After each optimiser step, on so many real tokens. Raises Over after the last one."""
        batch = next(self.batches)
        real = real_tokens(batch, self.limit)
        if tokens != real:
            raise RunError(
                f"step {self.done + 1} of {self.task.name} took {tokens} tokens, not {real}",
                "the contenders no longer train on the same samples in the same order: fix benchmarks/contenders/samples.py",
            )
        self.real += tokens
        self.supervised += supervised_tokens(batch, self.limit)
        self.samples += len(batch)
        self.steps += 1
        self.done += 1
        if self.steps < self.task.steps and self.done < self.max_steps:
            return
        seconds = self._now() - self.started
        self.peak = max(self.peak, peak_bytes(self.device))
        self.say(
            steps=self.steps,
            seconds=seconds,
            real=self.real,
            supervised=self.supervised,
            samples=self.samples,
            flops=self.weights.flops(self.trained, self.real, self.supervised),
            training_peak=self.peak if self.cleared else None,
            whole_peak=max(self.load_peak, self.peak),
            nll=self._nll() if self.task.to_nll else None,
            over=self.done == self.max_steps,
        )
        if self.done == self.max_steps:
            raise Over
        self._wait()

    def say(self, **values: Any) -> None:
        self.out.write(json.dumps(values) + "\n")
        self.out.flush()

    def _wait(self) -> None:
        """Sleep on the pipe until the next turn; what was done meanwhile counts for nothing."""
        if not self.orders.readline():
            raise Over
        self.real = self.supervised = self.samples = self.steps = 0
        reset_peak(self.device)
        self.started = self._now()

    def _now(self) -> float:
        if self.device == "cuda":
            torch.cuda.synchronize()
        elif self.device == "mps":
            torch.mps.synchronize()
        return time.perf_counter()

    def _nll(self) -> float:
        """Held-out NLL in nats an answer token, of the base as the contender has changed it, without padding."""
        training = self.base.model.training
        self.base.model.eval()
        nll = mean_nll(self.base, self.validation)
        self.base.model.train(training)
        return nll
