"""Control vectors that ship with irm-lite, known by name: a model answers in a tone before anything was trained.

Each is a .gguf in the package `irm_lite.steering.shipped`, beside a TOML file that says what it is of. Imports no torch: the UI
uses it.
"""

import tomllib
from dataclasses import dataclass, fields
from functools import cache
from importlib import resources
from pathlib import Path

from irm_lite.core.errors import VectorError


@dataclass(frozen=True)
class ShippedVector:
    """One of them, and where it comes from."""

    name: str
    path: Path
    title: str
    model: str  # the preset whose base it was made on
    data: str
    question: str  # one that the training has not seen
    licence: str
    command: str  # that made it
    versions: str
    sha256: str
    figures: str


@cache
def shipped_vectors() -> dict[str, ShippedVector]:
    """All of them by name. Raises VectorError where a description lacks something."""
    found = []
    for entry in resources.files("irm_lite.steering.shipped").iterdir():
        if entry.name.endswith(".toml"):
            name = entry.name.removesuffix(".toml")
            told = tomllib.loads(entry.read_text(encoding="utf-8"))
            told |= {"name": name, "path": Path(str(entry)).with_suffix(".gguf")}
            if told.keys() != {each.name for each in fields(ShippedVector)}:
                raise VectorError(f"the description of the shipped vector {name} has other keys", "install irm-lite again")
            found.append(ShippedVector(**told))
    return {each.name: each for each in sorted(found, key=lambda each: each.name)}


def shipped_for(model: str, data: str | None = None) -> ShippedVector | None:
    """The first that was made for this preset, and on this data where that is given; None where there is none."""
    fitting = (each for each in shipped_vectors().values() if each.model == model and data in (None, each.data))
    return next(fitting, None)


def file_of(source: Path | str) -> Path:
    """The file that a name of a shipped vector means, as a preset's name means a model; any other text is a path itself."""
    named = shipped_vectors().get(str(source))
    return Path(source) if named is None else named.path
