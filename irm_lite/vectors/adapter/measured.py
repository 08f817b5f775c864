"""An adapter beside its vector, its IRM and the base, on the same answers: fidelity, and what it does at other strengths."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import torch
from torch import Tensor

from irm_lite.base.load import Base
from irm_lite.core.types import Progress, unwatched
from irm_lite.data.encoding import Sample
from irm_lite.data.packing import pack
from irm_lite.llamacpp.adapters import Scaled
from irm_lite.llamacpp.likelihood import llamacpp_log_probabilities
from irm_lite.steering.control_vector import ControlVector
from irm_lite.steering.injection import inject
from irm_lite.steering.irm import IRM
from irm_lite.steering.likelihood import kl, log_probabilities
from irm_lite.vectors.fidelity.comparison import Comparison, Where
from irm_lite.vectors.fidelity.tally import tally

if TYPE_CHECKING:
    from irm_lite.llamacpp import Runtime

Way = Literal["base", "irm", "vector", "adapter"]
COMPARED_AT = (-1.0, 0.5, 1.0, 1.5)  # strengths at which adapter and vector are compared


class Ways(Protocol):
    """A model that can be steered in each way."""

    measured_in: Where

    def log_probabilities(self, way: Way, sample: Sample, strength: float = 1.0) -> Tensor:
        """(A, V) at the positions where the sample's answer is predicted."""
        ...


class LlamaCppWays:
    """A runtime in llama.cpp, made with the IRM if there is one, and adapters that were loaded beside its model."""

    measured_in: Where = "llama.cpp"

    def __init__(self, runtime: "Runtime", vector: ControlVector | None, adapters: Sequence[Scaled]) -> None:
        self._runtime = runtime
        self._vector = vector
        self._adapters = adapters

    def steer(self, way: Way, strength: float = 1.0) -> None:
        """From now on."""
        runtime = self._runtime
        if runtime.dynamic is not None:
            runtime.dynamic.enabled, runtime.dynamic.strength = way == "irm", strength
        runtime.set_vector(self._vector if way == "vector" else None, strength)
        runtime.set_adapters([(each, scale * strength) for each, scale in self._adapters] if way == "adapter" else [])

    def log_probabilities(self, way: Way, sample: Sample, strength: float = 1.0) -> Tensor:
        self.steer(way, strength)
        return llamacpp_log_probabilities(self._runtime, sample)


class TransformersWays:
    """A base in transformers, into which PEFT has put the adapter."""

    measured_in: Where = "transformers"

    def __init__(self, base: Base, irm: IRM | None, vector: ControlVector, peft: Any) -> None:
        self._base = base
        self._steering = {"irm": irm, "vector": vector}
        self._peft = peft

    @torch.no_grad()
    def log_probabilities(self, way: Way, sample: Sample, strength: float = 1.0) -> Tensor:
        from peft.tuners.lora import LoraLayer

        for module in self._peft.modules():
            if isinstance(module, LoraLayer):
                module.set_scale("default", strength)
        irm = self._steering.get(way)
        injected = nullcontext() if irm is None else inject(self._base.model, irm, strength=strength)
        with nullcontext() if way == "adapter" else self._peft.disable_adapter(), injected:
            return log_probabilities(self._base, pack([sample]), None)


@contextmanager
def peft_at_work(base: Base, folder: Path) -> Iterator[Any]:
    """Within: PEFT's model of the base with the adapter of this folder. Afterwards the base is as it was."""
    from peft import PeftModel

    model = PeftModel.from_pretrained(base.model, str(folder))
    try:
        yield model
    finally:
        model.unload()


def compare_ways(
    ways: Ways, teacher: Way, samples: Sequence[Sample], on_progress: Progress = unwatched, students: Sequence[Way] = ()
) -> dict[Way, Comparison]:
    """The students (default: adapter, and vector where it is not the teacher), each against what they are to do and the base.

    In a comparison whose teacher is the vector, "irm" means it.
    """
    students = students or (("vector", "adapter") if teacher == "irm" else ("adapter",))
    sums: dict[Way, list[Tensor]] = {student: [] for student in students}
    for number, sample in enumerate(samples, 1):
        labels = torch.tensor(sample.ids[sample.answer_start :])
        base, taught = (ways.log_probabilities(way, sample).float().cpu() for way in ("base", teacher))
        for student in students:
            said = ways.log_probabilities(student, sample).float().cpu()
            sums[student].append(tally((base, taught, said), labels))
        on_progress(number, len(samples), f"measuring in {ways.measured_in}")
    return {student: Comparison(ways.measured_in, torch.stack(rows).numpy()) for student, rows in sums.items()}


def at_strengths(ways: Ways, samples: Sequence[Sample], on_progress: Progress = unwatched) -> dict[float, float]:
    """By strength s: 1 - KL(vector at s || adapter at s) / KL(vector at s || base), over all the samples' answer tokens."""
    lost, effect = dict.fromkeys(COMPARED_AT, 0.0), dict.fromkeys(COMPARED_AT, 0.0)
    for number, sample in enumerate(samples, 1):
        base = ways.log_probabilities("base", sample)
        for strength in COMPARED_AT:
            vector = ways.log_probabilities("vector", sample, strength)
            lost[strength] += float(kl(vector, ways.log_probabilities("adapter", sample, strength)).sum())
            effect[strength] += float(kl(vector, base).sum())
        on_progress(number, len(samples), "at other strengths")
    return {each: 1 - lost[each] / effect[each] if effect[each] > 0 else float("nan") for each in COMPARED_AT}
