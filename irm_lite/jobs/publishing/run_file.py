"""The published run.toml: a run's own, without this machine's paths, with what it takes to make it again and to compare."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from irm_lite.base.fingerprint import Fingerprint
from irm_lite.config import KINDS, TrainConfig
from irm_lite.core.errors import RunError
from irm_lite.core.files.reading import read_toml
from irm_lite.core.version import __version__
from irm_lite.jobs.publishing.gathered import Gathered
from irm_lite.jobs.publishing.lead import LEADS, Lead, VectorLead
from irm_lite.runs.directory import FORMAT, RunDirectory

CARD, RUN_FILE = "README.md", "run.toml"
_FORMAT = max(each.format for each in LEADS)  # of the table [reproduction]: 1 with a vector, 2 with an adapter


def run_document(gathered: Gathered, digests: Mapping[str, str]) -> dict[str, Any]:
    """For run.toml. `digests`: SHA-256 by file, of vectors, adapters and the IRM as they are published."""
    run, config = gathered.run, gathered.settings
    assert run is not None
    assert config is not None
    own = {"model": gathered.base.given, "data": gathered.data.name, "download": False}
    if run.chat_template.is_file():
        own["chat_template"] = run.chat_template.name
    at = run.rendered_at()
    return {
        "format": FORMAT,
        "created": run.created(),
        **({"rendered_at": at.isoformat()} if at else {}),
        "train": {**config.to_dict(), **own},
        "versions": run.versions(),
        "reproduction": _reproduction(gathered, run, digests),
    }


def _reproduction(gathered: Gathered, run: RunDirectory, digests: Mapping[str, str]) -> dict[str, Any]:
    lead = gathered.lead
    start = next((event for event in run.events.read() if event["kind"] == "start"), {})
    document: dict[str, Any] = {
        "format": lead.format,
        "published_by": f"irm-lite {__version__}",
        lead.key: lead.name,
        f"{lead.hashed}_sha256": lead.digest,
        "data_sha256": gathered.data.sha256,
        "samples_sha256": start.get("data_sha256", ""),
        "base_sha256": gathered.base.sha256,
        "processes": start.get("processes", 1),
        "rows": start.get("rows", 0),
        "machine": start.get("machine", {}),
        "export": lead.asked(),
        "files_sha256": dict(digests),
    }
    return {key: value for key, value in document.items() if value not in ("", None)}


@dataclass(frozen=True)
class Published:
    """A published folder, read. What it does not tell is empty."""

    folder: Path
    config: TrainConfig
    fingerprint: Fingerprint
    lead: Lead
    versions: Mapping[str, str]
    at: datetime | None
    told: Mapping[str, Any] = field(default_factory=dict)  # the table [reproduction]

    def text(self, name: str) -> str:
        return str(self.told.get(name, ""))

    def table(self, name: str) -> Mapping[str, Any]:
        found = self.told.get(name, {})
        return found if isinstance(found, dict) else {}


def read_published(place: Path) -> Published:
    """Of the folder, or of the card in it. Raises RunError where it was not published by irm-lite, or is damaged."""
    folder = place.parent if place.name == CARD and place.is_file() else place
    hint = f"give the folder that irm-lite publish wrote, or the {CARD} in it"
    if not (folder / CARD).is_file():
        raise RunError(f"{folder} is not a published folder (no {CARD})", hint)
    if not (folder / RUN_FILE).is_file():
        raise RunError(f"{folder} has no {RUN_FILE}: it was published from a vector alone", "ask its publisher to publish the run")
    run = RunDirectory(folder)
    config = run.config()
    told = read_toml(folder / RUN_FILE).get("reproduction")
    if not isinstance(told, dict):
        raise RunError(f"{folder / RUN_FILE} has no table [reproduction]", hint)
    if not isinstance(told.get("format"), int) or told["format"] > _FORMAT:
        raise RunError(f"{folder} was published by a newer irm-lite", "pip install -U irm-lite")
    lead = _lead(folder, told)
    if lead.format > 1 and KINDS[config.irm].leaves_as != "adapter":
        raise RunError(f"{folder / RUN_FILE} says irm = {config.irm}, which {lead.name} is not of", "download it again")
    return Published(folder, config, run.fingerprint(), lead, run.versions(), run.rendered_at(), told)


def _lead(folder: Path, told: Mapping[str, Any]) -> Lead:
    """Raises RunError where it is not there, or is not what was published."""
    kind = next((each for each in LEADS if each.key in told), VectorLead)
    name = str(told.get(kind.key, ""))
    if Path(name).is_absolute() or {"..", ""} & {*Path(name).parts, name} or not (folder / name).is_file():  # it leaves the folder
        raise RunError(
            f"{folder} lacks the {kind.key} that its {RUN_FILE} names ({name[:80]!r})", "download it again, with all its files"
        )
    lead = kind.load(folder, name)
    if (found := lead.digest) != (known := str(told.get(f"{kind.hashed}_sha256", ""))):
        what = f"SHA-256 of its {kind.hashed} {found}, not {known}"
        raise RunError(f"{folder / name} is not what was published: {what}", "download it again")
    return lead
