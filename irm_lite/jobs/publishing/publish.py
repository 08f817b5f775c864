"""The main path: a run or a vector into a folder that can be given away."""

import json
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from irm_lite.core.errors import InputError, IrmLiteError
from irm_lite.core.files.atomic import atomic_folder, is_left_over, require_folder
from irm_lite.core.files.manifest import MANIFEST, digest, write_manifest
from irm_lite.core.files.reading import read_json
from irm_lite.jobs.publishing.gathered import Gathered, Wishes, gather
from irm_lite.jobs.publishing.leaks import leaks, leaks_of, public
from irm_lite.jobs.publishing.model_card import model_card
from irm_lite.jobs.publishing.run_file import CARD, RUN_FILE, run_document
from irm_lite.steering.adapter import Adapter
from irm_lite.steering.control_vector import ControlVector

_IRM_FILES = ("irm.json", "irm.safetensors", "base.json")
_LARGEST = 1 << 22  # bytes of a JSON file that is rewritten


@dataclass(frozen=True)
class Publication:
    """A folder that was written. `digests`: SHA-256 of its files by name, without the manifest."""

    folder: Path
    digests: Mapping[str, str]
    gathered: Gathered

    @property
    def warnings(self) -> list[str]:
        return self.gathered.warnings

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        base = self.gathered.base
        return {
            "folder": str(self.folder),
            "files": dict(self.digests),
            "base_model": base.hub_id or None,
            "data": self.gathered.data.name,
            "data_licence": self.gathered.data.licence or None,
            "strength": self.gathered.wishes.strength,
            "reproducible": self.gathered.run is not None,
        }


def publish(what: Path, folder: Path, wishes: Wishes, force: bool = False) -> Publication:
    """Write `folder` anew: vectors, adapters, the IRM with its base's fingerprint, figures, run.toml, the card, a manifest.

    Raises InputError kinds before anything is written: where `what` is neither a run nor a vector, or the folder holds something
    else; IrmLiteError where a path of this machine would go with it.
    """
    require_place(folder, force)
    gathered = gather(what, wishes)
    with atomic_folder(folder.absolute()) as fresh:
        adapters = _write_files(gathered, fresh)
        digests = {path.relative_to(fresh).as_posix(): digest(path) for path in sorted(fresh.rglob("*")) if path.is_file()}
        if gathered.run is not None:
            import tomli_w

            (fresh / RUN_FILE).write_text(tomli_w.dumps(run_document(gathered, digests)), encoding="utf-8")
            digests[RUN_FILE] = digest(fresh / RUN_FILE)
        (fresh / CARD).write_text(model_card(gathered, digests, adapters), encoding="utf-8")
        write_manifest(fresh, digests)
        if found := leaks(fresh):
            raise IrmLiteError(f"a path of this machine would be published ({found[0]})", "rename what it names, or report this")
    return Publication(folder, {**digests, CARD: digest(folder / CARD)}, gathered)


def require_place(folder: Path, force: bool) -> None:
    """Raise InputError where a folder holds something that publish did not write, or was published and is not to be again."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file", "give a folder with --to")
    require_folder(folder)
    names = {each.name for each in folder.iterdir() if not is_left_over(each.name)} if folder.is_dir() else set()
    if not names:
        return
    listed = _listed(folder) | {MANIFEST, ".git", ".gitattributes"}
    if others := sorted(name for name in names if name not in listed):
        raise InputError(f"{folder} has files that publish did not write ({others[0]})", "give an empty or new folder with --to")
    if ".git" in names:
        raise InputError(f"{folder} is a git checkout, which would be replaced", "publish beside it, and copy")
    if not force:
        raise InputError(f"{folder} was published before", "say --force to write it anew, or choose another --to")


def _listed(folder: Path) -> set[str]:
    """The names at the top of a published folder."""
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        return {str(name).split("/")[0] for name in read_json(folder / MANIFEST)["files"]}
    return set()


def _write_files(gathered: Gathered, fresh: Path) -> dict[str, bool]:
    """All but run.toml and the card; the adapters by name, and whether each is a folder."""
    for name, path in gathered.vectors.items():
        _copy_steering(ControlVector.load(path), path, fresh / name)
    run = gathered.run
    if run is None:
        return {}
    for name in _IRM_FILES:
        shutil.copyfile(run.path / name, fresh / name)
    if run.chat_template.is_file():
        shutil.copyfile(run.chat_template, fresh / run.chat_template.name)
    if gathered.figures:
        text = json.dumps(public(gathered.figures), indent=2, allow_nan=False)
        (fresh / run.fidelity.name).write_text(text + "\n", encoding="utf-8")
    for adapter in gathered.adapters:
        if adapter.is_dir():
            _copy_peft(adapter, fresh / adapter.name, gathered.base.hub_id or gathered.base.given)
        else:
            _copy_steering(Adapter.load(adapter), adapter, fresh / adapter.name)
    return {adapter.name: adapter.is_dir() for adapter in gathered.adapters}


def _copy_steering(steering: ControlVector | Adapter, path: Path, target: Path) -> None:
    """As it is; where its keys name a path, as an older irm-lite wrote it, written anew without."""
    shutil.copyfile(path, target)
    if leaks_of(target):
        steering.metadata = public(steering.metadata)
        steering.save(target)


def _copy_peft(folder: Path, target: Path, base: str) -> None:
    """A folder of PEFT's, whose config names the base as others know it."""
    target.mkdir()
    weights, gguf = folder / "adapter_model.safetensors", folder / "adapter.gguf"
    if weights.is_file():
        shutil.copyfile(weights, target / weights.name)
    if gguf.is_file():
        _copy_steering(Adapter.load(gguf), gguf, target / gguf.name)
    config = public(read_json(folder / "adapter_config.json", _LARGEST)) | {"base_model_name_or_path": base}
    (target / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
