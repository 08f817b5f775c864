"""The main path: a published run trained again, exported as it was, and held against what was published."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from irm_lite.base.fingerprint import fingerprint_gguf
from irm_lite.base.load import Base, locate
from irm_lite.config import TrainConfig
from irm_lite.core.errors import BaseModelError, DataError
from irm_lite.core.files.atomic import require_folder
from irm_lite.core.files.manifest import digest
from irm_lite.core.files.paths import expanded, is_file
from irm_lite.core.machine.device import available, probe
from irm_lite.core.types import Progress, unwatched
from irm_lite.data.dataset import tones
from irm_lite.jobs.publishing.comparing import Compared, compared, differences
from irm_lite.jobs.publishing.lead import Made
from irm_lite.jobs.publishing.run_file import Published, read_published
from irm_lite.runs.directory import RunDirectory
from irm_lite.runs.events import Event
from irm_lite.runs.trained import TrainedRun, load_base_of
from irm_lite.runs.versions import installed_versions
from irm_lite.training.train import train

_MACHINE = {"system": "system", "processor": "processor", "python": "Python", "threads": "threads"}


@dataclass(frozen=True)
class Places:
    """Where this machine has what the publisher's had elsewhere: "" is as the folder says."""

    model: str = ""
    data: str = ""
    download: bool = False


@dataclass(frozen=True)
class Reproduced:
    """The run that was made, its vector or adapter, and the comparison with what was published."""

    published: Published
    run: TrainedRun
    made: Made
    compared: Compared

    def to_dict(self) -> dict[str, Any]:
        """For JSON. Fidelities are None where there is none."""
        fidelities = {"published": self.published.lead.steering.metadata.get("fidelity"), "made": self.made.fidelity}
        return {
            "run": str(self.run.directory.path),
            self.made.lead.key: str(self.made.path),
            "fidelity": fidelities,
            **self.compared.to_dict(),
        }


def reproduce(
    place: Path,
    out: Path,
    places: Places = Places(),  # it is frozen
    *,
    on_event: Callable[[Event], None] = lambda event: None,
    on_progress: Progress = unwatched,
    should_stop: Callable[[], bool] = lambda: False,
) -> Reproduced:
    """Train again what was published in `place`, a folder or the card in it, into the new run directory `out`.

    Raises InputError kinds before the training: where the folder was not published or has been changed, the base or the data is not
    there, or is another. What cannot be refused (versions, another machine) is told by the comparison.
    """
    published = read_published(place)
    directory = RunDirectory(out)
    directory.require_absent("choose another -o")
    require_folder(out)
    config, told = _here(published, places)
    _require_data(published, config, places)
    base = _base(published, config)
    run = train(config, out, base=base, at=published.at, on_event=on_event, should_stop=should_stop)
    run.directory.export.mkdir(exist_ok=True)
    made = published.lead.made_again(run, published.table("export"), on_progress)
    changed, unknown = _changes(published, run, config)
    same_file = digest(made.path) == published.table("files_sha256").get(published.lead.name)
    found = compared(published.lead, made.lead, same_file, [*told, *changed], unknown)
    return Reproduced(published, run, made, found)


def _here(published: Published, places: Places) -> tuple[TrainConfig, list[str]]:
    """The settings for this machine, and what of them had to change."""
    own: dict[str, Any] = {"download": places.download}
    if places.model:
        own["model"] = places.model
    if places.data:
        own["data"] = places.data
    elif (beside := published.folder / published.config.data).is_file():
        own["data"] = str(beside)
    told = []
    if not available(probe(), published.config.device):
        own |= {"device": "auto", "dtype": "auto", "optim": "auto"}
        told.append(f"device {published.config.device} -> what is here")
    return dataclasses.replace(published.config, **own), told


def _require_data(published: Published, config: TrainConfig, places: Places) -> None:
    """Raise DataError where the file is not there, or is another."""
    if config.data in tones() or config.data.startswith("hf:"):
        return  # what they hold is compared as samples
    known = published.text("data_sha256")
    path = expanded(config.data)
    hint = f"give the file whose SHA-256 is {known or 'not known: ask its publisher'} with --data"
    if not is_file(path):
        raise DataError(f"the data, {published.config.data}, is not here" if not places.data else f"there is no file {path}", hint)
    if known and (found := digest(path)) != known:
        raise DataError(f"{path} is not the data that this was trained on (its SHA-256 is {found})", hint)


def _base(published: Published, config: TrainConfig) -> Base:
    """Loaded. Raises BaseModelError where it is not here, or is of other weights."""
    hint = "give it with --model (a .gguf, a folder or a hub id), or let it be fetched with --download"
    made_on = published.fingerprint
    try:
        source = locate(config.model, config.download)
        found = fingerprint_gguf(source.gguf) if source.gguf else None  # of a file it is known before all is loaded
        base = None if found and not found.is_of(made_on) else load_base_of(config)
    except BaseModelError as error:
        raise BaseModelError(error.what, hint) from None
    found = base.fingerprint if base else found
    assert found is not None
    found.require_fit(made_on.architecture, made_on.n_layers, made_on.hidden_size, f"what was published in {published.folder}")
    if base is None or not found.is_of(made_on):
        of = f"fingerprint {found.weights[:16]}, not {made_on.weights[:16]}"
        raise BaseModelError(f"{config.model} is not the base that this was trained on ({of})", hint)
    return base


def _changes(published: Published, run: TrainedRun, config: TrainConfig) -> tuple[list[str], list[str]]:
    """What is not as it was, and what is not known of how it was."""
    start = next(event for event in run.directory.events.read() if event["kind"] == "start")
    here = installed_versions()
    versions = {name: name for name in {**published.versions, **here}}
    changed, unknown = differences(published.versions, here, versions)
    of_machine, not_told = differences(published.table("machine"), start["machine"], _MACHINE)
    told = {key: published.told[key] for key in ("processes", "rows", "samples_sha256", "base_sha256") if key in published.told}
    now = {"processes": start["processes"], "rows": start["rows"], "samples_sha256": start["data_sha256"]}
    gguf = locate(config.model, config.download).gguf
    if gguf is not None:
        now["base_sha256"] = digest(gguf)
    names = {
        "processes": "processes",
        "rows": "rows a step",
        "samples_sha256": "the samples as tokens",
        "base_sha256": "the base's file",
    }
    others, _ = differences(told, now, {key: name for key, name in names.items() if key in told})
    return [*changed, *of_machine, *others], [*unknown, *not_told]
