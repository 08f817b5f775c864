"""A run's lock: one process writes a run at a time, and says in lock.holder who it is. Imports no torch."""

import os
import platform
import re
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from irm_lite.core.errors import RunError
from irm_lite.core.files.reading import read_text
from irm_lite.core.timestamp import now

LOCK, HOLDER = "lock", "lock.holder"  # files in the run directory
_LOCK_SECONDS = 0.5  # a reader that tries the lock of a process that has died holds it for a moment
_LINE = re.compile(r"process (\d{1,10}) since (\S{1,40})(?: on (\S{1,255}))?", re.ASCII)


class RunLock:
    """The lock of the run in `folder`. `written`: the files and folders there that its holder writes in place.

    Making one reads nothing."""

    def __init__(self, folder: Path, written: Sequence[Path] = ()) -> None:
        self.folder = folder
        self.file, self.holder_file = folder / LOCK, folder / HOLDER
        self.written = (*written, self.file, self.holder_file)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lock; a crash releases it too. Raises RunError naming the holder where another process has it."""
        from filelock import FileLock, Timeout

        self._require_own_files()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.file, timeout=_LOCK_SECONDS)
            lock.acquire()
        except Timeout:
            holder = self._named() or "another process"
            raise RunError(f"{self.folder} is being written by {holder}", "wait for it, or stop it") from None
        except OSError as error:
            raise RunError(f"{self.folder} cannot be written ({error.strerror or error})", "choose another place") from None
        try:
            try:
                self.holder_file.write_text(f"{Holder.me(now())}\n", encoding="utf-8")
            except OSError as error:
                hint = "check that the folder can be written and has free space"
                raise RunError(f"{self.folder} cannot be written ({error.strerror})", hint) from None
            yield
        finally:
            with suppress(OSError):  # a line that stays names a process that is no longer alive
                self.holder_file.unlink()
            lock.release()

    def holder(self) -> "Holder | None":
        """Who writes here at the moment. The lock is tried only where lock.holder names a live process, which then has it: so
        a training that is about to start never finds it taken by a reader."""
        from filelock import FileLock, Timeout

        holder = self._named()
        if holder is None or (holder.here and not holder.alive()):
            return None
        with suppress(Timeout, OSError):  # in a folder without write permission the lock cannot be tried
            if holder.here:
                with FileLock(self.file, timeout=0):
                    return None  # an unrelated process has been given that number since
        return holder  # locks of another machine cannot be seen from here

    def _named(self) -> "Holder | None":
        """The process that lock.holder names, alive or not."""
        try:
            return Holder.parse(read_text(self.holder_file, 1000))
        except (OSError, ValueError):
            return None

    def _require_own_files(self) -> None:
        """Raise RunError where something written in place is a link or a pipe, as in a directory from a stranger it may be."""
        for place in self.written:
            if place.is_symlink():
                raise RunError(f"{place} is a link, and writing to it would change another file", "put the file itself there")
            if place.exists() and not (place.is_file() or place.is_dir()):
                raise RunError(f"{place} is not an ordinary file", "remove it")


@dataclass(frozen=True)
class Holder:
    """A process that holds a run's lock. `host` is empty where an older irm-lite wrote the line."""

    pid: int
    since: str
    host: str

    @classmethod
    def me(cls, since: str) -> "Holder":
        return cls(os.getpid(), since, platform.node().replace(" ", "-"))

    @classmethod
    def parse(cls, line: str) -> "Holder | None":
        """The holder that a line names, None where it names none."""
        match = _LINE.fullmatch(line.strip())
        return cls(int(match[1]), match[2], match[3] or "") if match and int(match[1]) < 1 << 31 else None

    def __str__(self) -> str:
        return f"process {self.pid} since {self.since}" + (f" on {self.host}" if self.host else "")

    @property
    def here(self) -> bool:
        """Whether it runs on this machine; True where the line names none."""
        return self.host in ("", platform.node().replace(" ", "-"))

    def alive(self) -> bool:
        """Whether a process with this number runs on this machine."""
        import psutil

        return self.here and psutil.pid_exists(self.pid)

    def interrupt(self) -> None:
        """Ask it to finish its step, save and end, as ctrl+c does. Raises RunError where that is not possible.

        Background jobs of a shell script ignore SIGINT: they get SIGTERM, which the command line handles the same way.
        """
        if not self.here:
            raise RunError(f"the training runs on {self.host}", f"stop process {self.pid} there")
        try:
            os.kill(self.pid, signal.SIGTERM if _ignores_sigint(self.pid) else signal.SIGINT)
        except ProcessLookupError:
            raise RunError(f"process {self.pid} has ended already", "there is nothing to stop") from None
        except OSError as error:
            raise RunError(
                f"process {self.pid} cannot be stopped ({error.strerror})", "stop it as the user who started it"
            ) from None


def _ignores_sigint(pid: int) -> bool:
    """From /proc, which Linux has; False elsewhere."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    masks = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    return bool(int(masks.get("SigIgn", "0"), 16) >> (signal.SIGINT - 1) & 1)
