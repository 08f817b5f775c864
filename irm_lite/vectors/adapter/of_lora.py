"""The main path of a run whose IRM is a LoRA: its factors copied into an adapter, measured, written with its provenance."""

import time
from pathlib import Path
from typing import TYPE_CHECKING

from irm_lite.base.maps import LAST
from irm_lite.core.types import Progress, unwatched
from irm_lite.steering.adapter import Adapter, Factors
from irm_lite.steering.control_vector import ControlVector
from irm_lite.steering.irm import LoraIRM
from irm_lite.vectors.adapter.job import job_of_lora
from irm_lite.vectors.adapter.make import keep_with_run
from irm_lite.vectors.adapter.measuring import Beside, measured_in_llamacpp, measured_in_transformers
from irm_lite.vectors.adapter.written import AdapterExport, write

if TYPE_CHECKING:
    from irm_lite.runs.trained import TrainedRun

COPIED = "copied"  # the method, among its keys


def adapter_of_lora(
    run: "TrainedRun",
    out: Path,
    *,
    vector: ControlVector | None = None,
    gguf: Path | None = None,
    on_progress: Progress = unwatched,
) -> AdapterExport:
    """A `lora` run's IRM as an adapter in `out` (a .gguf, or a folder of PEFT's), compared with the IRM, and with `vector` if there
    is one, on held-out answers: in llama.cpp on `gguf` (default: the base's own), else in transformers.

    Raises InputError where the model cannot carry it, before any work.
    """
    began = time.monotonic()
    gguf, irm = gguf or run.gguf_path, run.irm
    assert isinstance(irm, LoraIRM)
    job = job_of_lora(run, out, gguf)
    factors = {}
    for index, layer in enumerate(irm.layers):
        down, up = (each.float().cpu().numpy() for each in irm.factors(index))
        factors[f"blk.{layer}.{LAST}"] = Factors(down, up)
    adapter = Adapter(factors, job.fingerprint.architecture, irm.ALPHA, job.keys(COPIED))
    beside = Beside(irm, vector, run.held_out)
    if gguf is None:
        found = measured_in_transformers(run.base, adapter, job.names, beside, on_progress)
    else:
        found = measured_in_llamacpp(gguf, adapter, beside, on_progress)
    result = write(job, AdapterExport(out, gguf, adapter, [], "", found, began, job.matches))
    keep_with_run(run, result)
    return result
