"""What a publication is of first, in one shape: a control vector, or the LoRA adapter that a run of kind `lora` is."""

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from irm_lite.base.fingerprint import Fingerprint
from irm_lite.base.maps import LAST
from irm_lite.core.errors import VectorError
from irm_lite.core.types import Progress
from irm_lite.jobs.publishing.digests import digest_of, digest_of_adapter
from irm_lite.runs.trained import TrainedRun
from irm_lite.steering.adapter import Adapter, Factors
from irm_lite.steering.control_vector import ControlVector
from irm_lite.steering.layers import format_layers
from irm_lite.vectors.adapter.of_lora import COPIED, adapter_of_lora
from irm_lite.vectors.card_head import plain
from irm_lite.vectors.distil import Fitting
from irm_lite.vectors.export import export_vector

Figures = Mapping[str, Any]
_OF_BLOCK = re.compile(rf"blk\.(\d{{1,6}})\.{LAST}", re.ASCII)


@dataclass(frozen=True, eq=False)
class Lead(ABC):
    """`name`: its file's in the published folder, with / where it is in a folder of PEFT's."""

    name: str
    steering: ControlVector | Adapter

    key: ClassVar[str]  # what documents and messages call it
    noun: ClassVar[str]  # what a card calls it
    hashed: ClassVar[str]  # what its SHA-256 is of
    differs: ClassVar[str]  # what of it is compared by block
    format: ClassVar[int]  # the first of run.toml's table [reproduction] that can name it

    @classmethod
    @abstractmethod
    def load(cls, folder: Path, name: str) -> "Lead":
        """Raises VectorError where the file is not one; an adapter has to be its run's own, copied and not fitted to a vector."""

    @property
    @abstractmethod
    def digest(self) -> str:
        """SHA-256 of what it adds, whatever else its file says."""

    @property
    @abstractmethod
    def added(self) -> dict[int, Factors]:
        """What it adds in each block at strength 1, as B A: a map of low rank from what is read there."""

    @abstractmethod
    def require_fit(self, base: Fingerprint, name: str) -> None:
        """Raise VectorError where it was not made for this base, called `name`."""

    @abstractmethod
    def what(self) -> str:
        """A card's first sentence."""

    @abstractmethod
    def facts(self) -> list[tuple[str, str]]:
        """Rows of a card."""

    @abstractmethod
    def measured(self, kept: Figures) -> tuple[Figures, Figures | None]:
        """Its comparison with the IRM, and the score of its text, of what a run's fidelity.json holds; empty and None without."""

    @abstractmethod
    def asked(self) -> dict[str, Any]:
        """How it was made, for run.toml."""

    @abstractmethod
    def made_again(self, run: TrainedRun, asked: Mapping[str, Any], on_progress: Progress) -> "Made":
        """Of a run that was trained again, in the way that run.toml says; in the run's folder export."""


@dataclass(frozen=True)
class Made:
    """What was made again, its file, and its fidelity (None: the IRM does nothing of which there could be a share)."""

    lead: Lead
    path: Path
    fidelity: float | None


@dataclass(frozen=True, eq=False)
class VectorLead(Lead):
    """A control vector."""

    steering: ControlVector

    key, noun, hashed, differs, format = "vector", "control vector", "directions", "each block's direction", 1

    @classmethod
    def load(cls, folder: Path, name: str) -> "VectorLead":
        return cls(name, ControlVector.load(folder / name))

    @property
    def digest(self) -> str:
        return digest_of(self.steering)

    @property
    def added(self) -> dict[int, Factors]:
        one = np.ones((1, 1), np.float32)  # whatever is read
        return {block: Factors(one, direction[:, None]) for block, direction in self.steering.directions.items()}

    def require_fit(self, base: Fingerprint, name: str) -> None:
        self.steering.require_fit(base, name)

    def what(self) -> str:
        first, last = self.steering.layers[0], self.steering.layers[-1]
        return f"A control vector: llama.cpp adds one direction to what comes out of each of the blocks {first} to {last}."

    def facts(self) -> list[tuple[str, str]]:
        method = plain(str(self.steering.metadata.get("method", "not known")))
        return [("blocks", format_layers(self.steering.layers)), ("how it was made", method)]

    def measured(self, kept: Figures) -> tuple[Figures, Figures | None]:
        return kept, (kept.get("score") or {}).get("vector")

    def asked(self) -> dict[str, Any]:
        metadata = self.steering.metadata
        fitted: dict[str, Any] = {key: metadata[key] for key in ("epochs", "seed") if key in metadata}
        return {"method": metadata.get("method", "auto"), "layers": format_layers(self.steering.layers), **fitted}

    def made_again(self, run: TrainedRun, asked: Mapping[str, Any], on_progress: Progress) -> Made:
        method: Any = asked.get("method") if asked.get("method") in ("distil", "mean", "exact") else "auto"
        fitting = Fitting(float(f"{float(asked.get('epochs', 2.0)):.6g}"), int(asked.get("seed", 0)))  # its file keeps a float32
        made = export_vector(
            run,
            run.directory.default_vector,
            method=method,
            layers=str(asked.get("layers", "all")),
            allow_disagreement=True,  # it is told where it was published
            on_progress=on_progress,
            fitting=fitting,
        )
        return Made(VectorLead(made.path.name, made.vector), made.path, made.comparison.to_dict()["fidelity"])


@dataclass(frozen=True, eq=False)
class AdapterLead(Lead):
    """The adapter of a run whose IRM is a LoRA: its own factors."""

    steering: Adapter

    key, noun, hashed, differs, format = "adapter", "LoRA adapter", "factors", "the map beside each block", 2

    @classmethod
    def load(cls, folder: Path, name: str) -> "AdapterLead":
        adapter = Adapter.load(folder / name)
        if adapter.metadata.get("method") != COPIED or not all(map(_OF_BLOCK.fullmatch, adapter.factors)):
            raise VectorError(f"{folder / name} is fitted to a vector or of another program", "irm-lite export RUN --as adapter")
        return cls(name, adapter)

    @property
    def digest(self) -> str:
        return digest_of_adapter(self.steering)

    @property
    def added(self) -> dict[int, Factors]:
        found = self.steering.factors
        scales = {name: np.float32(self.steering.alpha / each.rank) for name, each in found.items()}
        return {int(name.split(".")[1]): Factors(each.a, each.b * scales[name]) for name, each in found.items()}

    def require_fit(self, base: Fingerprint, name: str) -> None:
        base.match(self.steering.made_on(base), "the adapter", name)

    @property
    def _rank(self) -> int:
        return max(each.rank for each in self.steering.factors.values())

    def what(self) -> str:
        return (
            f"A LoRA adapter of rank {self._rank} beside the last linear map of each of the blocks {self._blocks}: what it adds "
            "to the residual stream depends on what the model reads."
        )

    @property
    def _blocks(self) -> str:
        return format_layers(sorted(self.added))

    def facts(self) -> list[tuple[str, str]]:
        return [("blocks", self._blocks), ("beside", f"`{LAST}`"), ("rank", str(self._rank)), ("alpha", f"{self.steering.alpha:g}")]

    def measured(self, kept: Figures) -> tuple[Figures, Figures | None]:
        found = kept.get("adapter") or {}  # of the one that was made last
        path = Path(str(found.get("adapter", "")))
        own = path.name in (self.name, self.name.split("/")[0])
        return (found.get("measured") or {}, found.get("score")) if own else ({}, None)

    def asked(self) -> dict[str, Any]:
        return {"method": COPIED}

    def made_again(self, run: TrainedRun, asked: Mapping[str, Any], on_progress: Progress) -> Made:
        made = adapter_of_lora(run, run.directory.default_adapter, on_progress=on_progress)
        return Made(AdapterLead(made.path.name, made.adapter), made.path, made.comparison.to_dict()["fidelity"])


LEADS: tuple[type[Lead], ...] = (VectorLead, AdapterLead)
