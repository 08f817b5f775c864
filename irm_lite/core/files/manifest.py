"""A list of a folder's files with sizes and SHA-256, written last: it shows whether the folder is still as it was written."""

import hashlib
import json
from collections.abc import Collection, Mapping
from pathlib import Path

from irm_lite.core.files.reading import read_json

MANIFEST = "manifest.json"
FORMAT = 1


def write_manifest(folder: Path, known: Mapping[str, str]) -> None:
    """List every file in `folder`. `known`: digests that need not be computed again, by name."""
    files = {
        name: {"bytes": path.stat().st_size, "sha256": known.get(name) or digest(path)} for name, path in _files(folder).items()
    }
    (folder / MANIFEST).write_text(json.dumps({"format": FORMAT, "files": files}, indent=2) + "\n", encoding="utf-8")


def damage(folder: Path, required: Collection[str] = (), passed_over: str = " ") -> str:
    """The first difference from the manifest, in a few words; empty where there is none.

    The manifest has to list the `required` files; files whose names begin with `passed_over` are not checked.

    Sizes are compared before anything is read.
    """
    try:
        document = read_json(folder / MANIFEST)
        if document["format"] > FORMAT:
            return "a newer irm-lite wrote it"
        listed = {str(name): (int(each["bytes"]), str(each["sha256"])) for name, each in document["files"].items()}
    except FileNotFoundError:
        return f"{MANIFEST} is missing"
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError):
        return f"{MANIFEST} cannot be read"
    if unlisted := sorted({*required} - listed.keys()):
        return f"{MANIFEST} does not list {unlisted[0]}"
    listed = {name: known for name, known in listed.items() if not name.startswith(passed_over)}
    try:
        found = _files(folder)
        for name, (size, _) in listed.items():
            if name not in found:
                return f"{name} is missing"
            if found[name].stat().st_size != size:
                return f"{name} has {found[name].stat().st_size} bytes, not {size}"
        return next((f"{name} has another SHA-256" for name, (_, sha) in listed.items() if digest(found[name]) != sha), "")
    except OSError as error:
        return f"{error.strerror or error}"


def digest(path: Path) -> str:
    """A file's SHA-256."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _files(folder: Path) -> dict[str, Path]:
    """The files by their names relative to `folder`. Found by listing: a name from a manifest is never opened as a path."""
    paths = sorted(folder.rglob("*"))
    return {path.relative_to(folder).as_posix(): path for path in paths if path.is_file() and path.name != MANIFEST}
