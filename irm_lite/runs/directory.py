"""The run directory: the names of its files, and what it says of the run. Imports no torch: the TUI reads runs through it."""

import json
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irm_lite.config import TrainConfig
from irm_lite.core.errors import InputError, RunError
from irm_lite.core.files.atomic import is_left_over, remove_folder, remove_left_over_files, remove_left_over_folders, write_text
from irm_lite.core.files.reading import read_json, read_toml
from irm_lite.core.timestamp import now
from irm_lite.runs.checkpoints import Checkpoints
from irm_lite.runs.events import Events
from irm_lite.runs.lock import HOLDER, LOCK, RunLock

if TYPE_CHECKING:
    from irm_lite.base.fingerprint import Fingerprint

FORMAT = 1
LARGEST_LIVE = 256 << 20  # bytes of a live snapshot; 40 layers of 5120 are 800 KB

# of a run that was begun before there were these settings
_OF_BEFORE = {"loop_penalty": 0.0, "phrase_penalty": 0.0, "fact_weight": 1.0}


class RunDirectory:
    """Paths and files of one run. Making one reads nothing."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)

    @property
    def name(self) -> str:
        """The folder's name, also where the path is `.`."""
        return self.path.name if self.path.name not in ("", "..") else self.path.resolve().name

    @property
    def events(self) -> Events:
        return Events(self.path / "events.jsonl")

    @property
    def checkpoints(self) -> Checkpoints:
        return Checkpoints(self.path / "checkpoints")

    @property
    def lock(self) -> RunLock:
        return RunLock(self.path, written=(self.events.path, self.checkpoints.path, self.tensorboard))

    @property
    def export(self) -> Path:
        return self.path / "export"

    @property
    def live(self) -> Path:
        """Newest mean |IRM output| (L, H), as safetensors with tensor `mean_abs` and the layers in its metadata."""
        return self.path / "live.safetensors"

    @property
    def default_vector(self) -> Path:
        return self.export / "vector.gguf"

    @property
    def default_adapter(self) -> Path:
        return self.export / "adapter.gguf"

    @property
    def heatmap(self) -> Path:
        return self.export / "vector.png"

    @property
    def chat_template(self) -> Path:
        """The template that the run was trained with, where it was given by hand."""
        return self.path / "chat_template.jinja"

    @property
    def fidelity(self) -> Path:
        return self.export / "fidelity.json"

    @property
    def recordings(self) -> Path:
        """A folder for each recording (analysis/recordings/)."""
        return self.path / "recordings"

    def newest_recording(self) -> Path | None:
        """The folder of the recording that was written last, or None."""
        found = self.recordings.glob("*/recording.json")
        return max((each.parent for each in found), key=lambda folder: (folder / "recording.json").stat().st_mtime, default=None)

    @property
    def ablations(self) -> Path:
        """The effects of zeroing indices, a file for each (analysis/ablation.py)."""
        return self.path / "ablations"

    @property
    def tensorboard(self) -> Path:
        return self.path / "tensorboard"

    def irm_size(self) -> int:
        """Bytes of the run's IRM, 0 where it has none yet."""
        return sum(path.stat().st_size for path in self.path.glob("irm.*") if path.is_file())

    def create(
        self,
        config: TrainConfig,
        fingerprint: "Fingerprint",
        versions: dict[str, str],
        chat_template: str | None = None,
        asked: TrainConfig | None = None,
        rendered_at: datetime | None = None,
    ) -> None:
        """Start a run by writing base.json and run.toml; only for the holder of the lock. Raises RunError where the directory holds
        something already, or cannot be written.

        `config` is resolved, `asked` the configuration as the user gave it. `chat_template`: the text of one given by hand;
        `rendered_at`: the local time that chat templates see.
        """
        import tomli_w

        self.require_absent()
        try:
            write_text(self.path / "base.json", json.dumps(fingerprint.to_dict(), indent=2) + "\n")
            self.chat_template.unlink(missing_ok=True)  # left by a start that was killed
            if chat_template is not None:
                write_text(self.chat_template, chat_template)
            document: dict[str, Any] = {"format": FORMAT, "created": now(), "train": config.to_dict(), "versions": versions}
            if rendered_at is not None:
                document["rendered_at"] = rendered_at.isoformat()
            if asked is not None:
                document["asked"] = asked.to_dict()
            write_text(self.path / "run.toml", tomli_w.dumps(document))
        except OSError as error:
            raise RunError(f"the run directory {self.path} cannot be written ({error.strerror})", "choose another --out") from None

    def require_absent(self, hint: str = "choose another --out, or go on with --resume") -> None:
        """Raise RunError where the path is a file, or a directory that is not empty. What a training leaves that was killed before
        it wrote run.toml does not count."""
        if self.path.is_dir():
            names = {each.name for each in self.path.iterdir() if not is_left_over(each.name)}
            begun = {"base.json", self.chat_template.name} if LOCK in names else set()
            if names <= {LOCK, HOLDER} | begun:
                return
        if self.path.exists():
            raise RunError(f"{self.path} exists", hint)

    def discard(self) -> None:
        """Remove the files of a training that failed to start, and the directory if nothing else is in it."""
        for name in ("run.toml", "base.json", "events.jsonl", "irm.json", "irm.safetensors", "live.safetensors", HOLDER, LOCK):
            (self.path / name).unlink(missing_ok=True)
        self.chat_template.unlink(missing_ok=True)
        with suppress(OSError):
            if self.tensorboard.is_dir():
                remove_folder(self.tensorboard)
            remove_left_over_files(self.path)
            self.path.rmdir()

    def config(self) -> TrainConfig:
        settings = {**_OF_BEFORE, **self._toml()["train"]}
        if self.chat_template.is_file():  # the run's own copy, also after the run was moved
            settings = {**settings, "chat_template": str(self.chat_template)}
        return TrainConfig.from_dict(settings, str(self.path / "run.toml"))

    def started(self) -> bool:
        """Whether a training has begun here; False where the directory may not be read."""
        try:
            return (self.path / "run.toml").is_file()
        except OSError:
            return False

    def asked(self) -> TrainConfig | None:
        """The configuration as the user gave it; None where an older irm-lite made the run, which did not keep it."""
        found = self._toml().get("asked")
        return TrainConfig.from_dict(found, str(self.path / "run.toml")) if isinstance(found, dict) else None

    def versions(self) -> dict[str, str]:
        """Library -> version, as the run began."""
        found = self._toml().get("versions")
        return {name: str(version) for name, version in found.items()} if isinstance(found, dict) else {}

    def created(self) -> str:
        return str(self._toml().get("created", ""))

    def rendered_at(self) -> datetime | None:
        """The local time that the run's chat template sees, if it asks for one; None where an older irm-lite did not keep it."""
        try:
            return datetime.fromisoformat(self._toml()["rendered_at"])
        except (KeyError, TypeError, ValueError):
            return None

    def fingerprint(self) -> "Fingerprint":
        from irm_lite.base.fingerprint import Fingerprint  # needs numpy, which the UI's first frame does not wait for

        try:
            return Fingerprint.from_dict(read_json(self.path / "base.json", 1 << 20))
        except (OSError, ValueError, InputError) as error:
            raise RunError(f"{self.path / 'base.json'} cannot be read ({error})", "the run is damaged") from None

    def remove_left_overs(self) -> None:
        """Remove the unfinished files of a killed training. Only for the holder of the lock."""
        remove_left_over_files(self.path)
        remove_left_over_folders(self.checkpoints.path)

    def _toml(self) -> dict[str, Any]:
        path = self.path / "run.toml"
        try:
            data = read_toml(path)
        except (FileNotFoundError, NotADirectoryError):
            raise RunError(f"{self.path} is not a run directory (no run.toml)", "give the folder that train wrote") from None
        except (OSError, ValueError) as error:
            raise RunError(f"{path} cannot be read ({error})", "the run is damaged") from None
        if not isinstance(data.get("format"), int) or not isinstance(data.get("train"), dict):
            raise RunError(f"{path} is not a run's file", "the run is damaged")
        if data["format"] > FORMAT:
            raise RunError(f"{self.path} was written by a newer irm-lite", "pip install -U irm-lite")
        return data


def require_unlinked(folder: Path) -> None:
    """Raise RunError where a folder to write into is, or lies behind, a link inside a run, which a stranger's may hold: what is
    written would land elsewhere."""
    for place in (folder, *folder.parents):
        if place.is_symlink() and (run := next((each for each in place.parents if RunDirectory(each).started()), None)):
            raise RunError(f"{place} is a link inside the run {run}: what is written there would land elsewhere", "choose an -o")


def find_runs(folder: Path) -> list[RunDirectory]:
    """The run directories directly under `folder`, newest first."""
    if not folder.is_dir():
        return []
    found = [path for path in folder.iterdir() if RunDirectory(path).started()]
    return [RunDirectory(path) for path in sorted(found, key=lambda path: (path / "run.toml").stat().st_mtime, reverse=True)]


def default_run(config: TrainConfig, folder: Path = Path("runs")) -> Path:
    """FOLDER/DATA-IRM, or the first of DATA-IRM-2, -3 ... that is free."""
    data = Path(config.data.removeprefix("hf:")).stem
    first = folder / f"{data}-{config.irm}"
    return next(path for number in range(1, 10**6) if not (path := first if number == 1 else Path(f"{first}-{number}")).exists())
