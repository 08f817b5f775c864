"""The run directory: the only code that knows its file names. Imports no torch: the TUI reads runs through it."""

import json
import math
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irm_lite.config import TrainConfig
from irm_lite.core.errors import InputError, RunError, TrainingFailed
from irm_lite.core.files.atomic import is_left_over, remove_folder, remove_left_over_files, remove_left_over_folders, write_text
from irm_lite.core.files.manifest import damage
from irm_lite.core.files.reading import open_ordinary, read_json, read_text, read_toml
from irm_lite.runs.lock import Holder

if TYPE_CHECKING:
    from irm_lite.base.fingerprint import Fingerprint

FORMAT = 1
_LOCK, _HOLDER = "lock", "lock.holder"
_LOCK_SECONDS = 0.5  # a reader that tries the lock of a process that has died holds it for a moment
LONGEST_LINE = 1 << 20  # bytes of an event
BEST = "best"  # folder in a checkpoint: the best IRM so far, where that is of another step
_CHECKPOINT = (  # what each has to hold (checkpoint_state.py)
    *("irm.json", "irm.safetensors", "optimizer.json", "optimizer.safetensors", "scheduler.json", "scheduler.safetensors"),
    *("rng.json", "rng.safetensors", "trainer_state.json"),
)
LARGEST_LIVE = 256 << 20  # bytes of a live snapshot; 40 layers of 5120 are 800 KB

Event = dict[str, Any]


class RunDirectory:
    """Paths and files of one run. Opening it reads nothing."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)

    @property
    def name(self) -> str:
        """What the run is called: its folder's name, also where it is given as `.`."""
        return self.path.name if self.path.name not in ("", "..") else self.path.resolve().name

    def checkpoint(self, step: int) -> Path:
        return self.path / "checkpoints" / f"step-{step}"

    def checkpoints(self) -> list[Path]:
        """Those that are there, by step, the newest last."""
        found = [
            path
            for path in (self.path / "checkpoints").glob("step-*")
            if re.fullmatch(r"step-(0|[1-9]\d{0,11})", path.name, re.ASCII)
        ]
        return sorted(found, key=lambda path: int(path.name.removeprefix("step-")))

    @property
    def event_file(self) -> Path:
        """Where `append_event` writes; for readers that go on where they stopped."""
        return self.path / "events.jsonl"

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
        """What zeroing an index did, a file for each index and place (ablation.py)."""
        return self.path / "ablations"

    @property
    def tensorboard(self) -> Path:
        return self.path / "tensorboard"

    def create(
        self,
        config: TrainConfig,
        fingerprint: "Fingerprint",
        versions: dict[str, str],
        chat_template: str | None = None,
        asked: TrainConfig | None = None,
    ) -> None:
        """Start a run: writes base.json and run.toml, the lock being held. Raises RunError where something is there.

        `asked` is the configuration before what it left open was chosen.
        """
        import tomli_w

        self.require_absent()
        try:
            write_text(self.path / "base.json", json.dumps(fingerprint.to_dict(), indent=2) + "\n")
            self.chat_template.unlink(missing_ok=True)  # of a start that was killed
            if chat_template is not None:
                write_text(self.chat_template, chat_template)
            document = {"format": FORMAT, "created": now(), "train": config.to_dict(), "versions": versions}
            if asked is not None:
                document["asked"] = asked.to_dict()
            write_text(self.path / "run.toml", tomli_w.dumps(document))
        except OSError as error:
            raise RunError(f"the run directory {self.path} cannot be written ({error.strerror})", "choose another --out") from None

    def require_absent(self, hint: str = "choose another --out, or go on with --resume") -> None:
        """Raise RunError where the directory exists and is not empty, or is a file. What a training leaves that is killed
        before it has written run.toml does not count."""
        if self.path.is_dir():
            names = {each.name for each in self.path.iterdir() if not is_left_over(each.name)}
            begun = {"base.json", self.chat_template.name} if _LOCK in names else set()
            if names <= {_LOCK, _HOLDER} | begun:
                return
        if self.path.exists():
            raise RunError(f"{self.path} exists", hint)

    def discard(self) -> None:
        """Remove what a training that failed to start has written, and the directory if nothing else is in it."""
        for name in ("run.toml", "base.json", "events.jsonl", "irm.json", "irm.safetensors", "live.safetensors", _HOLDER, _LOCK):
            (self.path / name).unlink(missing_ok=True)
        self.chat_template.unlink(missing_ok=True)
        with suppress(OSError):
            if self.tensorboard.is_dir():
                remove_folder(self.tensorboard)
            remove_left_over_files(self.path)
            self.path.rmdir()

    def config(self) -> TrainConfig:
        settings = self._toml()["train"]
        if self.chat_template.is_file():  # wherever the run has been moved to
            settings = {**settings, "chat_template": str(self.chat_template)}
        return TrainConfig.from_dict(settings, str(self.path / "run.toml"))

    def started(self) -> bool:
        """Whether a training has begun here, as far as one may look."""
        try:
            return (self.path / "run.toml").is_file()
        except OSError:
            return False

    def asked(self) -> TrainConfig | None:
        """The configuration as it was asked for; None where the run was made before that was noted."""
        found = self._toml().get("asked")
        return TrainConfig.from_dict(found, str(self.path / "run.toml")) if isinstance(found, dict) else None

    def finished(self) -> Event | None:
        """The event that ended the training, None where it was interrupted, failed or still goes on."""
        last: Event = {}
        for event in self.events():
            last = event
        return last if last.get("kind") == "end" and "best_nll" in last else None

    def versions(self) -> dict[str, str]:
        """Of the libraries that the run began with, by name."""
        found = self._toml().get("versions")
        return {name: str(version) for name, version in found.items()} if isinstance(found, dict) else {}

    def created(self) -> str:
        return str(self._toml().get("created", ""))

    def fingerprint(self) -> "Fingerprint":
        from irm_lite.base.fingerprint import Fingerprint  # needs numpy, which the UI's first frame does not wait for

        try:
            return Fingerprint.from_dict(read_json(self.path / "base.json", 1 << 20))
        except (OSError, ValueError, InputError) as error:
            raise RunError(f"{self.path / 'base.json'} cannot be read ({error})", "the run is damaged") from None

    def events(self) -> Iterator[Event]:
        """All events so far. A line that is none (torn by a crash) is passed over."""
        try:
            file = open_ordinary(self.event_file)
        except FileNotFoundError:
            return
        except OSError as error:
            raise RunError(f"{self.event_file} cannot be read ({error.strerror or error})", "the run is damaged") from None
        with file:
            for line in iter(lambda: file.readline(LONGEST_LINE), b""):  # of a longer one each piece is none
                try:
                    event = json.loads(line.decode("utf-8", "replace"))
                except (ValueError, RecursionError):
                    continue
                if isinstance(event, dict) and isinstance(event.get("kind"), str):
                    yield event

    def append_event(self, kind: str, **values: Any) -> Event:
        """Append one event, as one line in one write."""
        finite = {key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in values.items()}
        event: Event = {"time": now(), "kind": kind, **finite}
        line = json.dumps(event, allow_nan=False) + "\n"  # NaN is no JSON
        with self.event_file.open("a+b") as file:
            if file.tell() > 0:  # a line torn by a crash must not swallow this one
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    line = "\n" + line
            file.write(line.encode())
        return event

    def sync_events(self) -> None:
        """Once this returns, no power cut takes away the events so far."""
        with self.event_file.open("ab") as file:
            os.fsync(file.fileno())

    @contextmanager
    def keeping(self, what: str) -> Iterator[None]:
        """Around writing `what`: where that fails, for a full disk say, raises TrainingFailed with the fix."""
        try:
            yield
        except OSError as error:
            reason = " ".join(str(error.strerror or error).split())[:200]
            hint = f"make space, then go on with irm-lite train --resume {self.path}"
            raise TrainingFailed(f"{what} of {self.path} cannot be written ({reason})", hint) from error

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the run's lock. Raises RunError naming the holder where another process writes. Released by a crash too."""
        from filelock import FileLock, Timeout

        holder = self.path / _HOLDER
        self._require_own_files()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.path / _LOCK, timeout=_LOCK_SECONDS)
            lock.acquire()
        except Timeout:
            raise RunError(
                f"{self.path} is being written by {self._noted() or 'another process'}", "wait for it, or stop it"
            ) from None
        except OSError as error:
            raise RunError(f"{self.path} cannot be written ({error.strerror or error})", "choose another place") from None
        try:
            try:
                holder.write_text(f"{Holder.me(now())}\n", encoding="utf-8")
            except OSError as error:
                raise RunError(f"{self.path} cannot be written ({error.strerror})", "check the place and its free space") from None
            yield
        finally:
            with suppress(OSError):  # a holder that is not alive counts for nothing
                holder.unlink()
            lock.release()

    def _require_own_files(self) -> None:
        """Raise RunError where what is written, or emptied, in place leads elsewhere, or is a pipe, as a stranger's may."""
        for name in ("events.jsonl", _LOCK, _HOLDER, "checkpoints", self.tensorboard.name):
            place = self.path / name
            if place.is_symlink():
                raise RunError(f"{place} is a link, which would be written through", "put what it leads to there")
            if place.exists() and not (place.is_file() or place.is_dir()):
                raise RunError(f"{place} is no ordinary file", "remove it")

    def holder(self) -> Holder | None:
        """Who writes here at the moment. The lock is tried only where a live process is named, which then holds it: no
        training that is about to start finds it taken."""
        from filelock import FileLock, Timeout

        holder = self._noted()
        if holder is None or (holder.here and not holder.alive()):
            return None
        with suppress(Timeout, OSError):  # of a folder that may not be written the lock cannot be tried
            if holder.here:
                with FileLock(self.path / _LOCK, timeout=0):
                    return None  # another process has got that number since
        return holder  # locks of another machine cannot be seen from here

    def _noted(self) -> Holder | None:
        """Who says in the lock's note that it writes here."""
        try:
            return Holder.parse(read_text(self.path / _HOLDER, 1000))
        except (OSError, ValueError):
            return None

    def newest_checkpoint(self, tell: Callable[[str], None] = lambda text: None) -> Path | None:
        """The sound checkpoint of the highest step, or None; `tell` gets a line for each damaged one that is passed over."""
        for path in reversed(self.checkpoints()):
            reason = damage(path, _CHECKPOINT)
            if not reason:
                return path
            if not damage(path, _CHECKPOINT, f"{BEST}/"):
                tell(f"the best IRM that {path.name} keeps is damaged ({reason}): the run's own stays")
                return path
            tell(f"the checkpoint {path.name} is damaged ({reason}) and passed over")
        return None

    def thin_checkpoints(self, step: int, keep: int) -> None:
        """Remove all but the `keep` newest up to `step`, the latest that was written; later ones were passed over as damaged."""
        found = self.checkpoints()
        past = [path for path in found if int(path.name.removeprefix("step-")) <= step]
        for path in found:
            if path not in past[-keep:]:
                remove_folder(path)

    def remove_left_overs(self) -> None:
        """Remove what a killed training was writing; the lock is held."""
        remove_left_over_files(self.path)
        remove_left_over_folders(self.path / "checkpoints")

    def size_of_checkpoints(self) -> int:
        """Bytes of the checkpoints and the IRM."""
        files = (*(self.path / "checkpoints").rglob("*"), *self.path.glob("irm.*"))
        return sum(path.stat().st_size for path in files if path.is_file())

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


def now() -> str:
    """UTC time, ISO 8601 with seconds."""
    return datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="seconds")
