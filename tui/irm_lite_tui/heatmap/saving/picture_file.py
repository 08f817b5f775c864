"""A picture as a file: CSV is written here, PNG and SVG by a separate process (draw.py)."""

import csv
import json
import os
import re
import subprocess
import tempfile
from itertools import chain, count
from pathlib import Path
from threading import Lock

import numpy as np

from irm_lite.core.errors import InputError
from irm_lite.core.files.atomic import atomic_path
from irm_lite.core.machine.child import run_module
from irm_lite.core.visible_text import visible
from irm_lite_tui.heatmap.source import Choice, Picture, Source

_SECONDS = 120  # a picture takes two or three; a machine may be busy
_LONGEST = 60  # characters of a source's name in a file's
_one_at_a_time = Lock()  # so that two do not find the same name free


def picture_name(source: Source, other: Source | None, choice: Choice) -> str:
    """A file name, without suffix, for what is shown; `other` is what was subtracted."""
    if choice.mode == "token":
        what = [f"prompt-{choice.prompt}", f"token-{choice.token}"]
    else:
        what = [choice.mode.replace(" |v|", "-abs")] if len(source.modes) > 1 else []
        what += [choice.phase] if source.phases else []
    words = [source.name, *what, *(["minus", other.name] if other else [])]
    return "-".join(re.sub(r"[^A-Za-z0-9._-]+", "-", word)[:_LONGEST].strip("-.") for word in words)


def save(picture: Picture, path: Path, title: str, marks: tuple[int, ...]) -> Path:
    """Write as .csv (a row a layer, a column an index), .png or .svg; returns where: what is there already stays.

    Raises InputError where that fails.
    """
    suffix = path.suffix.lower()
    if suffix not in (".csv", ".png", ".svg"):
        raise InputError(f"{path.name} is not the name of a picture", "end it in .png, .svg or .csv")
    try:
        with _one_at_a_time:
            path = _free(path)
            if suffix == ".csv":
                _save_csv(picture, path)
            else:
                _save_drawn(picture, path, title, marks)
        return path
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror or error})", "choose another place") from None


def _free(path: Path) -> Path:
    """The path itself, or with the first number from 2 that is free."""
    numbered = (path.with_stem(f"{path.stem}-{number}") for number in count(2))
    return next(each for each in chain([path], numbered) if not os.path.lexists(each))


def _save_csv(picture: Picture, path: Path) -> None:
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["layer", *range(picture.values.shape[1])])
        for layer, values in zip(picture.layers, picture.values, strict=True):
            writer.writerow([layer, *values.tolist()])


def _save_drawn(picture: Picture, path: Path, title: str, marks: tuple[int, ...]) -> None:
    from safetensors.numpy import save_file

    about = json.dumps({"layers": picture.layers, "title": title, "marks": marks})
    with tempfile.TemporaryDirectory() as folder:
        values = Path(folder) / "values.safetensors"
        save_file({"values": np.ascontiguousarray(picture.values)}, values, {"about": about})
        command = [*run_module("irm_lite_tui.heatmap.saving.draw"), str(values), str(path)]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, errors="replace", timeout=_SECONDS, stdin=subprocess.DEVNULL
            )
        except subprocess.TimeoutExpired:
            raise InputError(f"{path} was not drawn in {_SECONDS} s", "try again when the machine is less busy") from None
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise InputError(f"{path} was not drawn ({visible(last)[:200]})", "choose another place, or save as .csv")
