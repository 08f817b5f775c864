"""The model that further ranks are fitted on: where llama.cpp is to run a file, that file's own weights."""

from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from irm_lite.base.load import Base, load_base
from irm_lite.core.errors import BaseModelError, RanOut
from irm_lite.core.files.gguf_header import read_header
from irm_lite.core.machine.device import available, decide, probe
from irm_lite.core.machine.memory import free_bytes

if TYPE_CHECKING:
    from irm_lite.runs.trained import TrainedRun

_HEADROOM = 1.3  # of the weights, for a step's activations


@dataclass(frozen=True)
class FittingBase:
    """A base, and what is said of it: `told`."""

    base: Base
    told: str


def fitting_base(run: "TrainedRun", gguf: Path | None) -> FittingBase:
    """The file's weights in float32, not quantised again, on the run's device where that has the memory; else the run's own base.

    What is fitted to the activations of an NF4 base loses on the file: 0.950 of the paper's IRM on the demo model against 0.992.
    """
    if gguf is not None:
        device = run.config.device if available(probe(), run.config.device) else "auto"
        wanted = _HEADROOM * 4 * sum(prod(tensor.shape) for tensor in read_header(gguf).tensors.values())
        if wanted <= free_bytes(decide(probe(), device, "float32", "none").device):
            try:
                base = load_base(str(gguf), quant="none", dtype="float32", device=device, chat_template=run.tokenizer.chat_template)
            except (BaseModelError, RanOut):  # transformers does not know every file that llama.cpp runs, and float32 is large
                pass
            else:
                run.irm.to(base.plan.device)
                return FittingBase(base, f"the weights of {gguf.name} in float32")
    return FittingBase(run.base, f"the run's base in {run.base.plan.quant}")
