"""Draw what a path names: a recording, a run's newest one, or a control vector."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from irm_lite.analysis.pictures.canvas import save_figure
from irm_lite.analysis.pictures.figures import choose_token, default_marks, pictures, vector_picture
from irm_lite.analysis.recordings.recording import Recording, load_recording
from irm_lite.core.errors import InputError, RunError
from irm_lite.core.files.atomic import require_folder
from irm_lite.core.files.paths import is_file
from irm_lite.core.types import FloatArray
from irm_lite.runs.directory import RunDirectory, require_unlinked
from irm_lite.steering.control_vector import ControlVector

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Drawn:
    """What was drawn: `files` by the picture's name; `values` (L, H) are those of the picture that says most, `what` they are."""

    source: Path
    files: dict[str, Path]
    marks: tuple[int, ...]
    choice: tuple[int, int] | None  # the prompt and the token of it that is drawn alone
    values: FloatArray
    layers: tuple[int, ...]
    what: str


def draw(
    target: Path,
    folder: Path | None = None,
    *,
    marks: Sequence[int] | None = None,
    prompt: int | None = None,
    token: int | None = None,
    suffix: str = "png",
    force: bool = False,
) -> Drawn:
    """Write the pictures into `folder`, or `figures` in the target or beside its .gguf; where it holds one of them already, into
    `figures-2` and so on. Raises InputError where `folder` holds one, unless `force`.

    `marks` are the neuron indices to mark (None: the paper's, where there is one). Raises InputError where a mark, the
    prompt or the token is not there, RunError and VectorError where the target is none or is damaged.
    """
    source, loaded = load_target(target)
    drawn: Iterable[tuple[str, Figure]]
    choice = None
    if isinstance(loaded, ControlVector):
        if prompt is not None or token is not None:
            raise InputError(f"{source} is a control vector, which has no tokens", "leave --prompt and --token out")
        marks = tuple(default_marks(loaded.hidden_size) if marks is None else marks)
        values, layers, what = np.stack(list(loaded.directions.values())), loaded.layers, "The vector"
        drawn = [(source.stem, vector_picture(loaded, source.name, marks))]
    else:
        marks = tuple(default_marks(loaded.about.hidden_size) if marks is None else marks)
        choice = choose_token(loaded, prompt, token)
        phase, statistics = list(loaded.statistics.items())[-1]
        values, layers = statistics.mean.astype(np.float32), tuple(loaded.about.layers)
        what = f"Mean output over {statistics.tokens} {phase} tokens"
        drawn = pictures(loaded, choice, marks)
    figures = dict(drawn)
    names = [f"{name}.{suffix}" for name in figures]
    folder = folder or _free_folder((target if target.is_dir() else target.parent) / "figures", names, force)
    require_unlinked(folder)
    require_folder(folder)
    if not force and (held := _held(folder, names)):
        raise InputError(f"{held} exists", "choose another -o, or say --force")
    files = {}
    for name, figure in figures.items():
        files[name] = folder / f"{name}.{suffix}"
        save_figure(figure, files[name])
    return Drawn(source, files, marks, choice, values, layers, what)


def _held(folder: Path, names: list[str]) -> Path | None:
    """The first of the files that is there."""
    return next((folder / name for name in names if os.path.lexists(folder / name)), None)


def _free_folder(folder: Path, names: list[str], force: bool) -> Path:
    """`folder`, or with the first number that has none of the files."""
    if force:
        return folder
    numbered = (folder.with_name(f"{folder.name}-{number}") for number in count(2))
    return next(each for each in chain([folder], numbered) if not _held(each, names))


def load_target(path: Path) -> tuple[Path, Recording | ControlVector]:
    """A recording's folder, a run (its newest recording, else its vector) or a .gguf: where it lies, and what it holds.

    Raises RunError where there is nothing to draw, RunError and VectorError where it is damaged.
    """
    if path.suffix.lower() == ".gguf" or is_file(path):
        return path, ControlVector.load(path)
    if (path / "recording.json").exists():
        return path, load_recording(path)
    run = RunDirectory(path)
    run.config()
    newest = run.newest_recording()
    if newest is not None:
        return newest, load_recording(newest)
    if run.default_vector.exists():
        return run.default_vector, ControlVector.load(run.default_vector)
    raise RunError(f"{path} has neither a recording nor a vector", f"make one: irm-lite record {path}, or irm-lite export {path}")
