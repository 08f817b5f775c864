"""A recording: what an IRM put out, token by token. Its files, read and written. Imports numpy alone: the TUI reads them.

A folder with recording.json (what was recorded, and the tokens' texts), statistics.safetensors (of any number of tokens) and
outputs.safetensors (the outputs themselves, float16, of the first few prompts).
"""

import json
import re
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np

from irm_lite.base.fingerprint import Fingerprint
from irm_lite.core.errors import RunError
from irm_lite.core.files.atomic import atomic_folder
from irm_lite.core.files.reading import read_json, require_ordinary
from irm_lite.core.types import DoubleArray, FloatArray

FORMAT = 2
_HEADER = 1 << 20  # bytes that a safetensors file may have beside its tensors
_UNTRAINED = "untrained."  # before the phase's name in the files
NEAR_ZERO = 1e-4  # |v| below this counts as zero, as in the paper's sparsity plot
Phase = Literal["prompt", "generated"]
PHASES: tuple[Phase, ...] = ("prompt", "generated")
Counts = np.ndarray[Any, np.dtype[np.int64]]
HalfArray = np.ndarray[Any, np.dtype[np.float16]]


@dataclass(frozen=True)
class Statistics:
    """Of the outputs v of T tokens, by layer and index. Shapes (L, H) unless said otherwise."""

    tokens: int
    mean: DoubleArray
    mean_abs: DoubleArray
    deviations: DoubleArray  # sum over tokens of (v - mean)^2
    minimum: FloatArray
    maximum: FloatArray
    near_zero: DoubleArray  # (L,): share of |v| < 1e-4
    in_top: Counts  # tokens for which the index is among the layer's `top` largest |v|
    largest_in_layer: Counts  # ... is the layer's largest |v|
    largest_of_all: Counts  # tokens for which this is the largest |v| of all layers and indices
    top: int

    @property
    def std(self) -> DoubleArray:
        """Standard deviation over the tokens, (L, H)."""
        spread: DoubleArray = np.sqrt(self.deviations / max(self.tokens, 1))
        return spread


@dataclass(frozen=True)
class Prompt:
    """The tokens of one prompt and of what was generated from it, as text."""

    question: str
    tokens: list[str]
    n_prompt: int

    @property
    def answer(self) -> str:
        return "".join(self.tokens[self.n_prompt :])


@dataclass(frozen=True)
class Description:
    """What was recorded, and where."""

    run: str
    data: str
    kind: str
    site: Literal["attn", "block"]
    layers: list[int]
    hidden_size: int
    base: Fingerprint
    measured_in: str  # "transformers" or "llama.cpp"
    weights: str  # the model's name there
    prompts: list[Prompt] = field(default_factory=list)
    n_prompts: int = 0  # all of them; `prompts` keeps those with outputs
    irm_sha256: str = ""  # of irm.safetensors, so that a recording of an IRM that was trained anew is known


@dataclass(frozen=True)
class Recording:
    """One recording. `statistics` has only the phases that had tokens; `outputs` a (T, L, H) float16 array a prompt.

    `untrained` is of the IRM that the training started from, on the same tokens: the control for what training did. It is
    empty where that IRM is silent, or was not recorded.
    """

    about: Description
    statistics: dict[Phase, Statistics]
    outputs: list[HalfArray]
    untrained: dict[Phase, Statistics] = field(default_factory=dict)

    @property
    def last_phase(self) -> Statistics:
        """Of the generated tokens; of the prompts' where nothing was generated."""
        return list(self.statistics.values())[-1]

    def save(self, target: Path) -> None:
        """Write the folder, which appears whole, in the place of an earlier one."""
        from safetensors.numpy import save_file

        groups = {f"{prefix}{phase}": each for prefix, of in self._groups for phase, each in of.items()}
        arrays = {
            f"{name}.{each.name}": np.ascontiguousarray(getattr(statistics, each.name))
            for name, statistics in groups.items()
            for each in fields(statistics)
            if each.name not in ("tokens", "top")
        }
        document = {
            "format": FORMAT,
            "phases": {name: {"tokens": each.tokens, "top": each.top} for name, each in groups.items()},
            **asdict(self.about),
        }
        with atomic_folder(target) as folder:
            save_file(arrays, folder / "statistics.safetensors")
            save_file({str(number): outputs for number, outputs in enumerate(self.outputs)}, folder / "outputs.safetensors")
            (folder / "recording.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")

    @property
    def _groups(self) -> tuple[tuple[str, dict[Phase, Statistics]], ...]:
        return ("", self.statistics), (_UNTRAINED, self.untrained)


def load_recording(folder: Path) -> Recording:
    """Read a recording's folder. Raises RunError where it is none, is damaged, has NaN in it, or is of a newer format."""
    from safetensors.numpy import load_file

    for name in ("recording.json", "statistics.safetensors", "outputs.safetensors"):
        if not (folder / name).is_file():
            raise RunError(f"{folder} is not a recording ({name} is missing)", "make one with irm-lite record")
    try:
        document = read_json(folder / "recording.json", 256 << 20)
        if document.pop("format") > FORMAT:
            raise RunError(f"{folder} was written by a newer irm-lite", "pip install -U irm-lite")
        phases = document.pop("phases")
        document["base"] = Fingerprint.from_dict(document["base"])
        document["prompts"] = [Prompt(**each) for each in document["prompts"]]
        about = Description(**document)
        _require_types(about)
        _require_sizes(about, folder)
        arrays = load_file(folder / "statistics.safetensors")
        outputs = load_file(folder / "outputs.safetensors")
        statistics, untrained = (
            {phase: _statistics(f"{of}{phase}", phases, arrays) for phase in PHASES if f"{of}{phase}" in phases}
            for of in ("", _UNTRAINED)
        )
        kept = [outputs[str(number)] for number in range(len(about.prompts))]
        for group in (statistics, untrained):
            _require_sound(about, group)
        _require_kept(about, kept)
    except RunError:
        raise
    except Exception as error:  # whatever is wrong inside, the files are not what `save` wrote
        raise RunError(f"the recording {folder} is damaged ({' '.join(str(error).split())[:200]})", "record again") from None
    if not statistics:
        raise RunError(f"the recording {folder} has no tokens", "record again")
    return Recording(about, statistics, kept, untrained)


def _require_types(about: Description) -> None:
    """Raise ValueError where something is not what `save` writes: JSON knows no types."""
    if about.site not in ("attn", "block"):
        raise ValueError(f"there is no site {about.site!r}")
    texts = [about.run, about.data, about.kind, about.measured_in, about.weights, about.irm_sha256]
    counts = [about.hidden_size, about.n_prompts, *about.layers]
    for number, prompt in enumerate(about.prompts):
        texts += [prompt.question, *prompt.tokens]
        counts.append(prompt.n_prompt)
        if not 0 <= prompt.n_prompt <= len(prompt.tokens):
            raise ValueError(f"prompt {number} has {prompt.n_prompt} of {len(prompt.tokens)} tokens")
    if not all(isinstance(each, str) for each in texts):
        raise ValueError("something that should be text is not")
    if not all(isinstance(each, int) and each >= 0 for each in counts):
        raise ValueError("something that should be a count is not")


def _require_sizes(about: Description, folder: Path) -> None:
    """Raise OSError where a file is larger than what it may hold, before it is read."""
    floats = len(about.layers) * about.hidden_size
    kept_bytes = 2 * floats * sum(len(prompt.tokens) for prompt in about.prompts)
    groups = 2 * len(PHASES) * len(fields(Statistics))  # trained and untrained
    for name, most in (("statistics", 8 * floats * groups), ("outputs", kept_bytes)):
        require_ordinary(folder / f"{name}.safetensors", most + _HEADER)


def _statistics(group: str, counted: dict[str, Any], arrays: dict[str, Any]) -> Statistics:
    names = [each.name for each in fields(Statistics) if each.name not in ("tokens", "top")]
    count, top = (int(counted[group][name]) for name in ("tokens", "top"))
    return Statistics(**{name: arrays[f"{group}.{name}"] for name in names}, tokens=count, top=top)


def _require_sound(about: Description, statistics: dict[Phase, Statistics]) -> None:
    """Raise ValueError where an array is not of the recording's size, or holds NaN or infinity."""
    size = (len(about.layers), about.hidden_size)
    for phase, each in statistics.items():
        if each.tokens < 1:
            raise ValueError(f"the {phase} phase has no tokens")
        for item in fields(each):
            value = getattr(each, item.name)
            if not isinstance(value, np.ndarray):
                continue
            if not np.issubdtype(value.dtype, np.number):
                raise ValueError(f"{phase}.{item.name} is of {value.dtype}")
            if value.shape != (size[:1] if item.name == "near_zero" else size):
                raise ValueError(f"{phase}.{item.name} has the shape {value.shape}")
            if not np.isfinite(value).all():
                raise ValueError(f"NaN or infinity in {phase}.{item.name}")


def _require_kept(about: Description, outputs: list[HalfArray]) -> None:
    size = (len(about.layers), about.hidden_size)
    for number, (prompt, vectors) in enumerate(zip(about.prompts, outputs, strict=True)):
        if vectors.dtype != np.float16 or vectors.shape != (len(prompt.tokens), *size):
            raise ValueError(
                f"prompt {number} has {len(prompt.tokens)} tokens and outputs of shape {vectors.shape}, {vectors.dtype}"
            )
        if not np.isfinite(vectors).all():
            raise ValueError(f"NaN or infinity in the outputs of prompt {number}")


def recording_name(name: str) -> str:
    """The name if it can be a folder's. Raises RunError otherwise."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name):
        raise RunError(f"{name!r} cannot name a recording", "give a --name of letters, digits, dots and dashes")
    return name
