"""What is published of a run, or of a vector alone: found and checked, nothing written."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from irm_lite.base.fingerprint import Fingerprint
from irm_lite.config import KINDS, TrainConfig
from irm_lite.core.errors import InputError, RunError, VectorError
from irm_lite.core.files.manifest import digest
from irm_lite.core.files.paths import expanded, is_file
from irm_lite.core.files.reading import read_json
from irm_lite.data.dataset import public_name, tones
from irm_lite.jobs.publishing.base_named import BaseNamed, base_of_run, base_of_vector
from irm_lite.jobs.publishing.lead import AdapterLead, Lead, VectorLead
from irm_lite.runs.directory import RunDirectory
from irm_lite.steering.control_vector import ControlVector, require_scale
from irm_lite.steering.irm_files import SavedIRM, read_saved
from irm_lite.steering.steering_file import is_adapter
from irm_lite.vectors.adapter.measuring import FOLDER_GGUF

_LARGEST = 1 << 22  # bytes of fidelity.json
_SHIPPED_LICENCE = "Apache-2.0"  # of the tones, as of all that comes with irm-lite


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What only its publisher knows. Raises InputError where the strength cannot be one."""

    strength: float = 1.0  # that is recommended
    title: str = ""
    base_model: str = ""  # its hub id
    licence: str = ""
    data_licence: str = ""
    repository: str = ""  # owner/name, where it goes to

    def __post_init__(self) -> None:
        require_scale(self.strength, hint="give one like 0.8, or -0.5")


@dataclass(frozen=True)
class DataNamed:
    """What it was trained on. `sha256`: of the file, "" where there is none or it is not there any more."""

    name: str
    licence: str
    sha256: str = ""


@dataclass(frozen=True)
class Gathered:
    """All of it. `lead` is what the card shows first; `vectors` by the name of their file, `adapters` are files and folders of
    PEFT's, that of the lead among them and first; `figures` is what export measured; run, settings and irm are None of a vector
    alone."""

    wishes: Wishes
    vectors: Mapping[str, Path]
    lead: Lead
    base: BaseNamed
    data: DataNamed
    figures: Mapping[str, Any]
    adapters: tuple[Path, ...] = ()
    run: RunDirectory | None = None
    settings: TrainConfig | None = None
    irm: SavedIRM | None = None

    @property
    def warnings(self) -> list[str]:
        """What a reader of the card will miss, with the flag that gives it."""
        missing = []
        if not self.base.hub_id:
            missing.append("the card names no base model that others can find: give its hub id by --base-model owner/name")
        if not self.data.licence:
            missing.append("the card does not say under which licence the data is: --data-licence")
        if not self.wishes.licence and not self.base.licence:
            missing.append("the card does not say under which licence this is published: --licence")
        if self.run is None:
            missing.append("a vector alone cannot be made again from what is published: publish its run for that")
        elif _leaves_as_adapter(self.run) and self.lead.key == "vector":
            missing.append(f"of this run a control vector carries a part alone: irm-lite export {self.run.path} --as adapter")
        return missing


def gather(what: Path, wishes: Wishes) -> Gathered:
    """Of a run directory, a vector in a run's folder export, or any control vector. Raises InputError kinds where it is neither, or
    lacks something; an adapter is published with its run."""
    if what.suffix.lower() != ".gguf":
        run = RunDirectory(what)
        run.config()  # raises where it is no run
        vectors = _vectors(run)
        return _of_run(run, vectors, _lead(run, vectors), wishes)
    if is_file(what) and is_adapter(what):
        raise InputError(
            f"{what} is an adapter, which is published with its run", "irm-lite publish RUN: all in RUN/export goes with it"
        )
    vector = ControlVector.load(what)
    run = RunDirectory(what.absolute().parent.parent)
    if what.absolute().parent.name == run.export.name and run.started():
        return _of_run(run, {what.name: what}, VectorLead(what.name, vector), wishes)
    names = vector.metadata
    data = DataNamed(public_name(str(names.get("data", ""))) if names.get("data") else "", wishes.data_licence)
    lead = VectorLead(what.name, vector)
    return Gathered(wishes, {what.name: what}, lead, base_of_vector(vector, wishes.base_model), _licensed(data), {})


def _of_run(run: RunDirectory, vectors: Mapping[str, Path], lead: Lead, wishes: Wishes) -> Gathered:
    config = run.config()
    saved = read_saved(run.path)
    made_on: Fingerprint = run.fingerprint()
    lead.require_fit(made_on, f"the base of {run.name}")
    figures = _figures(run) if lead.key == "adapter" or lead.name == run.default_vector.name else {}
    named = base_of_run(config, made_on, wishes.base_model)
    adapters = tuple(sorted(_adapters(run), key=lambda each: each.name != lead.name.split("/")[0]))  # the others stay in order
    return Gathered(wishes, vectors, lead, named, _data(config, wishes), figures, adapters, run, config, saved)


def _lead(run: RunDirectory, vectors: Mapping[str, Path]) -> Lead:
    """That adapter, of a run whose IRM leaves whole as one, if it is there; else the run's own vector. Raises VectorError where
    neither is."""
    whole = _leaves_as_adapter(run)
    files = [run.default_adapter, *sorted(run.export.glob("*.gguf")), *sorted(run.export.glob(f"*/{FOLDER_GGUF}"))]
    for path in files if whole else ():
        with suppress(InputError, OSError):  # a vector, or the adapter of one
            return AdapterLead.load(run.export, path.relative_to(run.export).as_posix())
    if run.default_vector.name in vectors:
        return VectorLead.load(run.export, run.default_vector.name)
    lacks, as_adapter = ("adapter", " --as adapter") if whole else ("vector", "")
    raise VectorError(f"{run.path} has no {lacks} yet", f"irm-lite export {run.path}{as_adapter}")


def _leaves_as_adapter(run: RunDirectory) -> bool:
    return KINDS[run.config().irm].leaves_as == "adapter"


def _vectors(run: RunDirectory) -> dict[str, Path]:
    """The control vectors in the run's folder export, its own first."""
    own = run.default_vector
    others = sorted(each for each in run.export.glob("*.gguf") if each != own and _is_vector(each))
    return {each.name: each for each in (*((own,) if own.is_file() else ()), *others)}


def _is_vector(path: Path) -> bool:
    try:
        return bool(ControlVector.load(path))
    except (InputError, OSError):
        return False


def _adapters(run: RunDirectory) -> tuple[Path, ...]:
    """In the run's folder export: files, and folders of PEFT's."""
    files = [each for each in sorted(run.export.glob("*.gguf")) if is_file(each) and is_adapter(each)]
    folders = [each.parent for each in sorted(run.export.glob("*/adapter_config.json"))]
    return (*files, *folders)


def _figures(run: RunDirectory) -> dict[str, Any]:
    try:
        found = read_json(run.fidelity, _LARGEST)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise RunError(f"{run.fidelity} cannot be read ({error})", f"irm-lite export {run.path} --force") from None
    return found if isinstance(found, dict) else {}


def _data(config: TrainConfig, wishes: Wishes) -> DataNamed:
    path = expanded(config.data)
    is_own = config.data not in tones() and not config.data.startswith("hf:")
    sha256 = digest(path) if is_own and is_file(path) else ""
    return _licensed(DataNamed(public_name(config.data), wishes.data_licence, sha256))


def _licensed(data: DataNamed) -> DataNamed:
    if data.licence or data.name not in tones():
        return data
    return DataNamed(data.name, _SHIPPED_LICENCE, data.sha256)
