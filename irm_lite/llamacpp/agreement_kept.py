"""What was measured of two runtimes before, kept by what it depends on: files, and the libraries that read them."""

import hashlib
import importlib.metadata
import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from irm_lite.base.fingerprint import fingerprint_gguf
from irm_lite.base.load import Source
from irm_lite.core.files.atomic import write_text
from irm_lite.core.files.paths import cache_folder
from irm_lite.core.files.reading import read_json

_MAX_KEPT = 1 << 20  # bytes of what is remembered
_ENTRIES = 200
_METHOD = 3  # of comparing: figures of another are measured again
_FIELDS: dict[str, Callable[[Any], Any]] = {
    "kl": float,
    "nll_transformers": float,
    "nll_llamacpp": float,
    "tokens": int,
    "explained": float,
}
Figures = dict[str, Any]


def identity_of_file(gguf: Path) -> str:
    """Of a GGUF: where it is and as it was written, its weights and its graph, which a copied date does not hide."""
    told = hashlib.sha256(repr(fingerprint_gguf(gguf)).encode()).hexdigest()[:16]
    return "|".join((*_stat(gguf), told))


def identity_of_base(source: Source) -> str:
    """Of a base: its GGUF, or the configuration and the weights of its folder."""
    if source.gguf is not None:
        return identity_of_file(source.gguf)
    folder = source.folder()
    if folder is None:
        return source.place
    digest = hashlib.sha256()
    for file in sorted(folder.glob("*")):
        if file.suffix in (".json", ".safetensors") and file.is_file():
            digest.update("|".join(_stat(file)).encode(errors="replace"))
    with suppress(OSError):
        digest.update((folder / "config.json").read_bytes()[:_MAX_KEPT])
    return f"{folder.resolve()}|{digest.hexdigest()[:16]}"


def libraries() -> str:
    """Those that the figures depend on, and how they are taken."""
    versions = [f"{name} {importlib.metadata.version(name)}" for name in ("llama-cpp-python", "transformers")]
    return "|".join((*versions, str(_METHOD)))


def read_kept() -> dict[str, Figures]:
    """Figures by key; nothing where there is nothing that can be read."""
    try:
        found = read_json(cache_folder() / "agreement.json", _MAX_KEPT)
        return {str(key): {name: kind(each[name]) for name, kind in _FIELDS.items()} for key, each in found.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError):
        return {}


def has_run(gguf: Path) -> bool:
    """Whether something was measured of this very file by these libraries. Raises InputError where it is damaged."""
    kept = read_kept()
    file, here = (identity_of_file(gguf), libraries()) if kept else ("", "")
    return any(key.startswith(file) and here in key for key in kept)


def write_kept(key: str, figures: Figures) -> None:
    """Keep them, beside the newest of those that are kept."""
    kept = dict([*read_kept().items()][-_ENTRIES:]) | {key: figures}
    with suppress(OSError):  # then it is measured again
        write_text(cache_folder() / "agreement.json", json.dumps(kept, indent=1) + "\n")


def _stat(path: Path) -> tuple[str, ...]:
    about = path.stat()
    return str(path.resolve()), str(about.st_size), str(about.st_mtime_ns)
