"""What the heatmap can draw: a recording, a control vector, a run's live snapshot; and the pictures that each holds."""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from irm_lite.analysis.pictures.pooling import colour_limit
from irm_lite.analysis.recordings.recording import PHASES, Phase, Prompt, Recording, load_recording
from irm_lite.core.errors import InputError, RunError
from irm_lite.core.files.paths import is_file
from irm_lite.core.files.reading import require_ordinary
from irm_lite.core.types import DoubleArray, FloatArray
from irm_lite.core.visible_text import visible
from irm_lite.runs.directory import LARGEST_LIVE, RunDirectory, find_runs
from irm_lite.steering.control_vector import ControlVector
from irm_lite.steering.layers import parse_layers
from irm_lite.steering.shipped_vectors import shipped_vectors

Mode = Literal["mean", "mean |v|", "deviation", "token"]
_MOST_LAYERS = 10_000  # beyond any model: a damaged file's number is not believed


@dataclass(frozen=True)
class Choice:
    """Which picture of a source: a recording has all modes, a vector only its mean, a snapshot only its mean |v|."""

    mode: Mode = "mean"
    phase: Phase = "generated"
    prompt: int = 0
    token: int = 0


@dataclass(frozen=True)
class Picture:
    """Values (L, H) in the residual stream's units, and the figures derived from them."""

    values: FloatArray
    layers: tuple[int, ...]
    what: str

    @cached_property
    def magnitudes(self) -> FloatArray:
        """|v|, (L, H)."""
        return np.abs(self.values)

    @cached_property
    def by_layer(self) -> FloatArray:
        """Mean |v| of each layer, (L,)."""
        # sums in float32 overflow where a training explodes
        means: FloatArray = self.magnitudes.mean(axis=1, dtype=np.float64).astype(np.float32)
        return means

    @cached_property
    def by_index(self) -> FloatArray:
        """Mean |v| of each index, (H,)."""
        means: FloatArray = self.magnitudes.mean(axis=0, dtype=np.float64).astype(np.float32)
        return means

    @cached_property
    def rms(self) -> DoubleArray:
        """Root mean square over the layers of each index, (H,)."""
        found: DoubleArray = np.sqrt(np.square(self.values, dtype=np.float64).mean(axis=0))
        return found

    @cached_property
    def whole_limit(self) -> float:
        return colour_limit(self.values)

    @cached_property
    def robust_limit(self) -> float:
        return colour_limit(self.values, robust=True)

    def rank_in_layer(self, row: int, index: int) -> int:
        """1 for the layer's largest |v|."""
        return int((self.magnitudes[row] > self.magnitudes[row, index]).sum()) + 1

    def rank_of_index(self, index: int) -> int:
        """1 for the index with the largest root mean square over the layers."""
        return int((self.rms > self.rms[index]).sum()) + 1

    def top(self, count: int) -> list[tuple[int, int]]:
        """The indices of largest root mean square, falling, each with the row of its largest |v|: (row, index)."""
        indices = np.argsort(-self.rms, kind="stable")[:count]
        rows = self.magnitudes[:, indices].argmax(axis=0)
        return [(int(row), int(index)) for row, index in zip(rows, indices, strict=True)]


@dataclass(frozen=True)
class Source:
    """A place, a name for it, and what was read there."""

    path: Path
    name: str
    content: Recording | ControlVector | Picture

    @property
    def modes(self) -> tuple[Mode, ...]:
        if isinstance(self.content, Recording):
            return ("mean", "mean |v|", "deviation", "token") if self.prompts else ("mean", "mean |v|", "deviation")
        return ("mean",) if isinstance(self.content, ControlVector) else ("mean |v|",)

    @property
    def phases(self) -> tuple[Phase, ...]:
        return tuple(each for each in PHASES if each in self.content.statistics) if isinstance(self.content, Recording) else ()

    @property
    def prompts(self) -> list[Prompt]:
        """The prompts that were recorded token by token."""
        return self.content.about.prompts if isinstance(self.content, Recording) else []

    @property
    def live(self) -> bool:
        """Whether a training may rewrite it."""
        return isinstance(self.content, Picture)

    def nearest(self, choice: Choice) -> Choice:
        """The choice, moved to the nearest one that this source has."""
        mode = choice.mode if choice.mode in self.modes else self.modes[0]
        phase = choice.phase if choice.phase in self.phases or not self.phases else self.phases[-1]
        if not self.prompts:
            return Choice(mode, phase)
        prompt = min(choice.prompt, len(self.prompts) - 1)
        return Choice(mode, phase, prompt, min(choice.token, max(0, len(self.prompts[prompt].tokens) - 1)))

    def picture(self, choice: Choice) -> Picture:
        """Raises InputError where the source has no such picture."""
        if self.nearest(choice) != choice:
            raise InputError(f"{self.name} has no such picture", f"it has {', '.join(self.modes)}")
        if isinstance(self.content, Picture):
            return self.content
        if isinstance(self.content, ControlVector):
            return Picture(np.stack(list(self.content.directions.values())), self.content.layers, "control vector")
        layers = tuple(self.content.about.layers)
        if choice.mode == "token":
            prompt = self.prompts[choice.prompt]
            phase = "generated" if choice.token >= prompt.n_prompt else "prompt"
            what = f"{phase} token {choice.token} of prompt {choice.prompt}: {visible(prompt.tokens[choice.token])!r}"
            return Picture(self.content.outputs[choice.prompt][choice.token].astype(np.float32), layers, what)
        statistics = self.content.statistics[choice.phase]
        values = {"mean": statistics.mean, "mean |v|": statistics.mean_abs, "deviation": statistics.std}[choice.mode]
        name = "standard deviation" if choice.mode == "deviation" else choice.mode
        return Picture(values.astype(np.float32), layers, f"{name} over {statistics.tokens} {choice.phase} tokens")


def subtract(one: Source, other: Source, choice: Choice) -> Picture:
    """The first's picture minus the other's, in the layers that both have.

    Raises InputError where the hidden sizes differ, no layer is shared, the other has no such picture, or its tokens differ.
    """
    first, second = one.picture(choice), other.picture(choice)
    if first.values.shape[1] != second.values.shape[1]:
        sizes = f"hidden sizes {first.values.shape[1]} and {second.values.shape[1]}"
        raise InputError(f"{other.name} cannot be subtracted ({sizes})", "compare runs of one base")
    layers = tuple(layer for layer in first.layers if layer in second.layers)
    if not layers:
        raise InputError(f"{other.name} cannot be subtracted (no layer is in both)", "compare runs that share layers")
    if choice.mode == "token":
        until = choice.token + 1
        if one.prompts[choice.prompt].tokens[:until] != other.prompts[choice.prompt].tokens[:until]:
            raise InputError(f"{other.name} has other tokens there", "compare a prompt's token, or a mean")
    rows = [[picture.layers.index(layer) for layer in layers] for picture in (first, second)]
    return Picture(first.values[rows[0]] - second.values[rows[1]], layers, f"{first.what}, minus {visible(other.name)}")


def load_source(path: Path) -> Source:
    """A recording's folder, a .gguf, a live snapshot, or a run: its newest recording, else its vector, else its snapshot.

    Raises RunError where there is nothing to draw, RunError and VectorError where it is damaged.
    """
    if path.suffix.lower() == ".gguf":
        return Source(path, path.name, ControlVector.load(path))
    if path.suffix == ".safetensors":
        return Source(path, f"{path.parent.name}, live", _load_snapshot(path))
    if is_file(path):
        return Source(path, path.name, ControlVector.load(path))
    if (path / "recording.json").exists():
        loaded = load_recording(path)
        return Source(path, f"{loaded.about.run}, {path.name}", loaded)
    run = RunDirectory(path)
    run.config()
    drawable = [each for _, each in drawables(run)]
    if not drawable:
        raise RunError(f"{path} has nothing to draw yet", f"make a recording: irm-lite record {path}")
    source = load_source(drawable[0])
    return replace(source, name=f"{path.name}, vector") if isinstance(source.content, ControlVector) else source


def drawables(run: RunDirectory) -> list[tuple[str, Path]]:
    """A run's recordings, the newest first, its vector and its live snapshot: names and places."""
    recordings = sorted(run.recordings.glob("*/recording.json"), key=lambda file: file.stat().st_mtime, reverse=True)
    name = run.path.name
    found = [(f"{name}, {file.parent.name}", file.parent) for file in recordings]
    rest = ((f"{name}, vector", run.default_vector), (f"{name}, live", run.live))
    return found + [(name, path) for name, path in rest if path.exists()]


def drawables_near(path: Path | None, folder: Path) -> list[tuple[str, Path]]:
    """What can be drawn in the run that a path lies in, and in the runs beside it; where it lies in none, in those of a folder;
    then the vectors that ship with irm-lite."""
    around = (path, *path.parents) if path is not None else ()
    run = next((each for each in around if RunDirectory(each).started()), None)
    first = [] if run is None else [RunDirectory(run)]
    others = [each for each in find_runs(folder if run is None else run.parent) if each.path != run]
    shipped = [(f"{each.name}, ships with irm-lite", each.path) for each in shipped_vectors().values()]
    return [each for run in (*first, *others) for each in drawables(run)] + shipped


def _load_snapshot(path: Path) -> Picture:
    """Raises RunError where it is missing, damaged, or no snapshot."""
    from safetensors import SafetensorError, safe_open

    try:
        require_ordinary(path, LARGEST_LIVE)
        with safe_open(path, framework="numpy") as file:
            values: FloatArray = np.asarray(file.get_tensor("mean_abs"), dtype=np.float32)
            metadata: dict[str, Any] = file.metadata() or {}
        layers = parse_layers(metadata["layers"], _MOST_LAYERS)
        if values.ndim != 2 or values.shape[0] != len(layers) or values.size == 0 or not np.isfinite(values).all():
            raise ValueError(f"values of shape {values.shape}, {len(layers)} layers")
    except FileNotFoundError:
        raise RunError(f"there is no live snapshot {path}", "a training writes one every few seconds") from None
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError, InputError) as error:
        raise RunError(f"the live snapshot {path} is damaged ({visible(str(error))[:200]})", "wait for the next one") from None
    return Picture(values, layers, "newest mean |v| of the training")
