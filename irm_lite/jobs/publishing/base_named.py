"""The base as those name it who have other folders: a preset, a hub id, or a file's name."""

from dataclasses import dataclass, replace
from pathlib import Path

from irm_lite.base.fingerprint import Fingerprint
from irm_lite.base.load import locate
from irm_lite.base.presets import Preset, presets
from irm_lite.config import TrainConfig
from irm_lite.core.errors import InputError
from irm_lite.core.files.gguf_header import read_header
from irm_lite.core.files.manifest import digest
from irm_lite.core.files.paths import is_hub_id
from irm_lite.steering.control_vector import ControlVector
from irm_lite.steering.steering_file import base_hashes

# Keys in which converters write where a GGUF came from.
_SOURCES = ("general.source.repo_url", "general.repo_url", "general.base_model.0.repo_url", "general.source.huggingface.repository")
_LICENCES = {  # of the presets, as the hub names them
    "Apache-2.0": "apache-2.0",
    "MIT": "mit",
    "Gemma": "gemma",
    "Llama 2 Community": "llama2",
    "Llama 3.1 Community": "llama3.1",
    "Llama 3.2 Community": "llama3.2",
}


@dataclass(frozen=True)
class BaseNamed:
    """`given`: what `--model` is to be given; `hub_id`, `licence` (by the hub's name) and `sha256` (of the .gguf) are "" where they
    are not known; `file` is the .gguf's name."""

    given: str
    hub_id: str
    fingerprint: Fingerprint
    licence: str = ""
    file: str = ""
    sha256: str = ""


def base_of_run(config: TrainConfig, fingerprint: Fingerprint, asked: str) -> BaseNamed:
    """`asked`: a hub id, by its publisher. Raises InputError where that is none, or the base is not where the run says."""
    _require_hub_id(asked)
    preset = presets().get(config.model)
    source = locate(config.model, download=True)  # a name alone will do here
    file = source.gguf.name if source.gguf else ""
    if preset is not None:
        found = _of_preset(preset, fingerprint)
        return replace(found, hub_id=asked or found.hub_id, file=file, sha256=digest(source.gguf) if source.gguf else "")
    if source.gguf is not None:
        return BaseNamed(file, asked or _told_by(source.gguf), fingerprint, "", file, digest(source.gguf))
    if Path(source.place).is_dir():
        return BaseNamed(asked or Path(source.place).resolve().name, asked, fingerprint)
    return BaseNamed(config.model, asked or config.model, fingerprint)


def base_of_vector(vector: ControlVector, asked: str) -> BaseNamed:
    """As far as the vector tells it."""
    _require_hub_id(asked)
    depth = vector.metadata.get("base.n_layers", 0)
    shape = (vector.architecture, depth if isinstance(depth, int) else 0, vector.hidden_size)
    return BaseNamed(asked, asked, Fingerprint(*shape, *base_hashes(vector.metadata)))


def _of_preset(preset: Preset, fingerprint: Fingerprint) -> BaseNamed:
    return BaseNamed(preset.name, preset.hub_id, fingerprint, _LICENCES.get(preset.licence, ""))


def _told_by(gguf: Path) -> str:
    """The hub id that a GGUF's keys name, or ""."""
    metadata = read_header(gguf).metadata
    for key in _SOURCES:
        told = "/".join(str(metadata.get(key, "")).rstrip("/").split("/")[-2:])
        if is_hub_id(told):
            return told
    return ""


def _require_hub_id(name: str) -> None:
    if name and not is_hub_id(name):
        raise InputError(f"--base-model {name!r} is not a hub id", "write owner/name")
