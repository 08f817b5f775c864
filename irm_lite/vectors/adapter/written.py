"""A written adapter: what it does, its file or folder, its keys and its card."""

import json
import time
from dataclasses import dataclass, field, replace
from math import isnan
from pathlib import Path
from typing import Any

from irm_lite.base.fingerprint import Match, fingerprint_gguf
from irm_lite.core.files.atomic import atomic_folder
from irm_lite.steering.adapter import Adapter
from irm_lite.vectors.adapter.card import card
from irm_lite.vectors.adapter.closed_form import BlockFit
from irm_lite.vectors.adapter.job import Job, is_gguf
from irm_lite.vectors.adapter.measuring import FOLDER_GGUF, Measured
from irm_lite.vectors.adapter.peft_folder import write_peft
from irm_lite.vectors.adapter.tuning import Tuned
from irm_lite.vectors.fidelity.comparison import GOOD_FIDELITY, Comparison
from irm_lite.vectors.fidelity.steerings import Steering

FILES = ("adapter_config.json", "adapter_model.safetensors", FOLDER_GGUF, "README.md", "fidelity.json")  # of a folder


@dataclass(frozen=True)
class AdapterExport:
    """An adapter, how well 1 is predicted in it, and what it does of what it is to do."""

    path: Path
    gguf: Path | None  # that it was made and measured on; None: in transformers
    adapter: Adapter
    fits: list[BlockFit]  # none of one that was copied
    texts: str  # what it was fitted on; empty: nothing was fitted
    measured: Measured
    began: float  # by time.monotonic
    matches: list[Match] = field(default_factory=list)  # of the vector and the run in that model
    tuned: Tuned | None = None  # of further ranks
    seconds: float = 0.0
    n_bytes: int = 0  # of the adapter's own file

    @property
    def teacher(self) -> Steering:
        """Whose work the comparisons are of: the run's IRM, or the vector."""
        return self.measured.teacher

    @property
    def compared(self) -> dict[Steering, Comparison]:
        return self.measured.compared

    @property
    def strengths(self) -> dict[float, float]:
        """What the adapter does of what the vector does at other strengths (of the IRM, where there is no vector)."""
        return self.measured.strengths

    @property
    def file(self) -> Path:
        """llama.cpp's."""
        return self.path if is_gguf(self.path) else self.path / FOLDER_GGUF

    @property
    def rank(self) -> int:
        return max(each.rank for each in self.adapter.factors.values())

    @property
    def modules(self) -> list[str]:
        """The kinds of maps that it goes beside, by GGUF's name."""
        return sorted({name.split(".", 2)[2] for name in self.adapter.factors})

    @property
    def origin(self) -> str:
        """Where its factors come from."""
        return f"fitted on {self.texts}" if self.texts else "copied from the run, in which they were trained"

    @property
    def normed(self) -> bool:
        """Whether what its maps put out is normalised before it reaches the stream."""
        return any(fit.floor is not None for fit in self.fits)

    @property
    def comparison(self) -> Comparison:
        return self.compared["adapter"]

    @property
    def warnings(self) -> list[str]:
        found = [*filter(None, [self.comparison.unsteered])]
        if self.comparison.unsteered is None and self.comparison.fidelity < GOOD_FIDELITY:
            instead = "use the vector where that can be" if self.fits else "this model is not what the run was trained on"
            found.append(f"fidelity {self.comparison.fidelity:.2f} is below {GOOD_FIDELITY}: {instead}")
        return found

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "adapter": str(self.path),
            "gguf": str(self.gguf) if self.gguf else None,
            "texts": self.texts or None,
            "teacher": self.teacher,
            "seconds": round(self.seconds, 1),
            "bytes": self.n_bytes,
            "rank": self.rank,
            "tuned": self.tuned.to_dict() if self.tuned else None,
            "strengths_of": self.measured.strengths_of,
            "fidelity": self.comparison.to_dict()["fidelity"],
            **{name: each.to_dict() for name, each in self.compared.items() if name == "vector"},
            "measured": self.comparison.to_dict(),
            "strengths": {f"{at:g}": None if isnan(value) else value for at, value in self.strengths.items()},
            "predicted": [fit.to_dict() for fit in self.fits],
        }


def write(job: Job, export: AdapterExport) -> AdapterExport:
    """Its file or folder, with the fidelity among its keys; the export with its size and time."""
    comparison, adapter = export.comparison, export.adapter
    if comparison.fidelity == comparison.fidelity:
        on = fingerprint_gguf(export.gguf).quantisation if export.gguf else job.fingerprint.quantisation
        adapter.metadata |= {
            "fidelity": comparison.fidelity,
            "fidelity.of": "IRM" if export.teacher == "irm" else "vector",
            "fidelity.on": comparison.measured_on(on),
        }

    def finished(file: Path) -> AdapterExport:
        return replace(export, seconds=time.monotonic() - export.began, n_bytes=file.stat().st_size)

    if is_gguf(job.out):
        adapter.save(job.out)
        return finished(job.out)
    with atomic_folder(job.out) as folder:
        write_peft(folder, adapter, job.names, job.base_name)
        adapter.save(folder / FOLDER_GGUF)
        written = finished(folder / "adapter_model.safetensors")
        (folder / "README.md").write_text(card(written, job.base_name), encoding="utf-8")
        (folder / "fidelity.json").write_text(json.dumps(written.to_dict(), indent=2) + "\n", encoding="utf-8")
    return written
