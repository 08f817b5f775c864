"""What an adapter does beside its vector, its IRM and the base, on the same answers: fidelity, and other strengths."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from irm_lite.base.load import Base
from irm_lite.core.log_probabilities import kl
from irm_lite.core.types import Progress, unwatched
from irm_lite.data.encoding import Sample
from irm_lite.llamacpp.likelihood import context_for
from irm_lite.steering.adapter import Adapter
from irm_lite.steering.control_vector import ControlVector
from irm_lite.steering.irm import IRM
from irm_lite.vectors.adapter.peft_folder import write_peft
from irm_lite.vectors.fidelity.comparing import Steerable, compared
from irm_lite.vectors.fidelity.comparison import Comparison
from irm_lite.vectors.fidelity.in_transformers import SteeredBase
from irm_lite.vectors.fidelity.steerings import Steering, steerable

FOLDER_GGUF = "adapter.gguf"  # beside PEFT's files in a folder: one folder for every program
COMPARED_AT = (-1.0, 0.5, 1.0, 1.5)  # strengths
_AT_STRENGTHS = 8  # samples


@dataclass(frozen=True)
class Beside:
    """What it is measured beside: the IRM if there is one, whose work is then what counts, and a vector if there is one."""

    irm: IRM | None
    vector: ControlVector | None
    samples: Sequence[Sample]

    @property
    def teacher(self) -> Steering:
        return "irm" if self.irm is not None else "vector"

    @property
    def students(self) -> tuple[Steering, ...]:
        return ("vector", "adapter") if self.irm is not None and self.vector is not None else ("adapter",)


@dataclass(frozen=True)
class Measured:
    """The comparisons, of whom, and by strength s 1 - KL(`strengths_of` at s || adapter at s) / KL(it at s || base)."""

    teacher: Steering
    compared: dict[Steering, Comparison]
    strengths_of: Steering
    strengths: dict[float, float]


def measured_in_llamacpp(gguf: Path, adapter: Adapter, beside: Beside, on_progress: Progress = unwatched) -> Measured:
    """On this file."""
    from irm_lite.llamacpp import Runtime
    from irm_lite.llamacpp.adapters import LoadedAdapter
    from irm_lite.llamacpp.parallel import ONE_BY_ONE

    with ExitStack() as stack:
        path = Path(stack.enter_context(TemporaryDirectory())) / FOLDER_GGUF
        adapter.save(path)
        runtime = stack.enter_context(Runtime(gguf, irm=beside.irm, n_ctx=context_for(beside.samples), n_sequences=ONE_BY_ONE))
        loaded = stack.enter_context(LoadedAdapter(runtime.model, path))
        # no adapter is at work any more when it is freed
        steered = stack.enter_context(steerable(runtime, beside.vector, [(loaded, 1.0)]))
        return _measured(steered, beside, on_progress)


def measured_in_transformers(
    base: Base, adapter: Adapter, names: Mapping[str, str], beside: Beside, on_progress: Progress = unwatched
) -> Measured:
    """On this base. `names`: its own names of the maps, by GGUF's."""
    with TemporaryDirectory() as folder:
        write_peft(Path(folder), adapter, names, base.name)
        with peft_at_work(base, Path(folder)) as peft:
            return _measured(SteeredBase(base, beside.irm, beside.vector, peft), beside, on_progress)


def _measured(model: Steerable, beside: Beside, on_progress: Progress) -> Measured:
    found = compared(model, beside.samples, on_progress, beside.teacher, beside.students)
    strengths_of: Steering = "irm" if beside.vector is None else "vector"
    return Measured(beside.teacher, found, strengths_of, _at_strengths(model, beside.samples, strengths_of, on_progress))


def _at_strengths(model: Steerable, samples: Sequence[Sample], of: Steering, on_progress: Progress) -> dict[float, float]:
    """Over the answer tokens of the first samples."""
    lost, effect = dict.fromkeys(COMPARED_AT, 0.0), dict.fromkeys(COMPARED_AT, 0.0)
    for number, sample in enumerate(samples[:_AT_STRENGTHS], 1):
        (base,) = model.log_probabilities("base", [sample])
        for strength in COMPARED_AT:
            (wanted,), (found,) = (model.log_probabilities(name, [sample], strength) for name in (of, "adapter"))
            lost[strength] += float(kl(wanted, found).sum())
            effect[strength] += float(kl(wanted, base).sum())
        on_progress(number, min(len(samples), _AT_STRENGTHS), "at other strengths")
    return {each: 1 - lost[each] / effect[each] if effect[each] > 0 else float("nan") for each in COMPARED_AT}


@contextmanager
def peft_at_work(base: Base, folder: Path) -> Iterator[Any]:
    """Within: PEFT's model of the base with the adapter of this folder. Afterwards the base is as it was."""
    from peft import PeftModel

    model = PeftModel.from_pretrained(base.model, str(folder))
    try:
        yield model
    finally:
        model.unload()
