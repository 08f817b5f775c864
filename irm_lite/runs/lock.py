"""Who writes a run: the line in lock.holder, read back, and the request to stop."""

import os
import platform
import re
import signal
from dataclasses import dataclass
from pathlib import Path

from irm_lite.core.errors import RunError

_LINE = re.compile(r"process (\d{1,10}) since (\S{1,40})(?: on (\S{1,255}))?", re.ASCII)


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
        """Whether it is a process of this machine, as far as the line tells."""
        return self.host in ("", platform.node().replace(" ", "-"))

    def alive(self) -> bool:
        """Whether a process of this number runs here."""
        import psutil

        return self.here and psutil.pid_exists(self.pid)

    def interrupt(self) -> None:
        """Ask it to finish its step, save and end, as ctrl+c does. Raises RunError where that is not possible.

        A shell script's background jobs ignore SIGINT: those get SIGTERM, which the command line takes the same way.
        """
        if not self.here:
            raise RunError(f"the training runs on {self.host}", f"stop process {self.pid} there")
        try:
            os.kill(self.pid, signal.SIGTERM if _ignores_sigint(self.pid) else signal.SIGINT)
        except ProcessLookupError:
            raise RunError(f"process {self.pid} has ended already", "nothing is left to stop") from None
        except OSError as error:
            raise RunError(
                f"process {self.pid} cannot be stopped ({error.strerror})", "stop it as the user who started it"
            ) from None


def _ignores_sigint(pid: int) -> bool:
    """As Linux tells it; False elsewhere."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    masks = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    return bool(int(masks.get("SigIgn", "0"), 16) >> (signal.SIGINT - 1) & 1)
