"""What of a folder would tell of the machine that it was made on: looked for in every file before it is given away."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from irm_lite.core.files.gguf_header import read_header
from irm_lite.core.files.reading import read_json, read_toml
from irm_lite.core.private_text import without_folders, without_paths

_HEADER = 8  # bytes that hold the length of a safetensors file's header


def leaks(folder: Path) -> list[str]:
    """'FILE: the text' for each text in which a path stands; empty where none does."""
    files = sorted(each for each in folder.rglob("*") if each.is_file())
    return [f"{path.relative_to(folder).as_posix()}: {text[:200]}" for path in files for text in leaks_of(path)]


def leaks_of(path: Path) -> list[str]:
    """The texts of this one file in which a path stands."""
    return [text for text in _texts(path) if without_paths(text) != text]


def public(value: Any) -> Any:
    """A document with each path in it as its last part, and paths within texts blanked."""
    if isinstance(value, str):
        return without_paths(without_folders(value))
    if isinstance(value, dict):
        return {key: public(each) for key, each in value.items()}
    return [public(each) for each in value] if isinstance(value, list | tuple) else value


def _texts(path: Path) -> Iterator[str]:
    """The texts in a file: of binary ones those in the header."""
    if path.suffix == ".gguf":
        header = read_header(path)
        yield from (value for value in header.metadata.values() if isinstance(value, str))
    elif path.suffix == ".safetensors":
        with path.open("rb") as file:
            size = int.from_bytes(file.read(_HEADER), "little")
            yield json.dumps(json.loads(file.read(size)).get("__metadata__", {}))
    elif path.suffix in (".json", ".toml"):  # as they are read: escapes look like a path of Windows
        yield from _strings(read_json(path) if path.suffix == ".json" else read_toml(path))
    else:
        yield from path.read_text(encoding="utf-8").splitlines()


def _strings(value: Any) -> Iterator[str]:
    """All texts in a document, keys too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from _strings([*value, *value.values()])
    elif isinstance(value, list):
        for each in value:
            yield from _strings(each)
