"""What belongs to a path: the model's GGUF, its control vector, its IRM, its adapter. The chat loads them, the export uses them."""

import os
from dataclasses import dataclass
from pathlib import Path

from irm_lite.base.presets import EMBEDDED, find_gguf, presets
from irm_lite.core.errors import IrmLiteError
from irm_lite.core.files.gguf_header import read_header
from irm_lite.core.files.paths import is_file
from irm_lite.runs.directory import RunDirectory
from irm_lite.steering.shipped_vectors import shipped_for, shipped_vectors

_IN_FOLDER = "adapter.gguf"  # beside PEFT's files


@dataclass(frozen=True)
class Sources:
    """Texts as a user would type them; empty: none. `wrong` says why something is missing, and the fix; `template` is the chat
    template that the run was given by hand."""

    gguf: str = ""
    vector: str = ""
    irm: str = ""
    adapter: str = ""
    wrong: str = ""
    template: str = ""


def sources_of(path: Path | None) -> Sources:
    """A run: its base's GGUF, its IRM, its exported vector and adapter; while it has none of them, the vector that ships for its
    base and tone. A vector, an adapter or a model: itself. Nothing: the embedded model, and the vector that ships for it."""
    try:
        if path is None:
            return Sources(gguf=(model := embedded()), vector=_shipped(model))
        if (path / _IN_FOLDER).is_file() and not RunDirectory(path).started():
            return Sources(gguf=embedded(), adapter=str(path / _IN_FOLDER))
        if path.is_dir() or not path.exists():
            return _of_run(RunDirectory(path))
        header = read_header(path)
        if header.architecture == "controlvector":
            return Sources(gguf=embedded(), vector=str(path))
        if header.metadata.get("general.type") == "adapter":
            return Sources(gguf=embedded(), adapter=str(path))
    except (IrmLiteError, OSError) as error:
        return Sources(gguf=embedded(), wrong=str(error))
    return Sources(gguf=str(path))


def embedded() -> str:
    """The embedded model's name where it is installed, else nothing."""
    try:
        find_gguf(EMBEDDED)
    except IrmLiteError:
        return ""
    return EMBEDDED


def _shipped(model: str, data: str | None = None) -> str:
    """The name of the vector that ships for this model and tone; empty: none does."""
    found = shipped_for(model, data)
    return found.name if found else ""


def question_for(sources: Sources) -> str:
    """A question to begin with, one that a shipped vector's training has not seen; empty where no such vector is chosen."""
    found = shipped_vectors().get(sources.vector)
    return found.question if found else ""


def _of_run(run: RunDirectory) -> Sources:
    config = run.config()
    model = config.model
    vector = str(run.default_vector) if run.default_vector.is_file() else ""
    irm = str(run.path) if (run.path / "irm.safetensors").is_file() else ""
    adapter = str(run.default_adapter) if run.default_adapter.is_file() else ""
    if not (vector or irm or adapter):
        vector = _shipped(model, config.data)
    wrong = "" if irm else f"{run.path} holds no trained IRM yet: train it, or continue with irm-lite train --resume"
    template = str(run.chat_template) if run.chat_template.is_file() else ""
    known = presets().get(model)
    if (known is not None and known.package) or model.lower().endswith(".gguf") or is_file(Path(model)):
        return Sources(model, vector, irm, adapter, wrong, template)
    wrong = wrong or f"the run's base {model} is no .gguf file: give its GGUF"
    return Sources("", vector, irm, adapter, wrong, template)


def name_of(source: str) -> str:
    """A short name for a title: a run's own, not its file's; that a vector ships with irm-lite."""
    if source in shipped_vectors():
        return f"{source}, ships with irm-lite"
    path = Path(os.path.normpath(source))
    own = path.parent.name == "export" and path.name in ("vector.gguf", "adapter.gguf")
    return path.parent.parent.name if own else path.name
