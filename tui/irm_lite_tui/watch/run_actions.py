"""What can be done to a run's folder. Each raises RunError, with the fix, where that fails."""

import shutil
from pathlib import Path

from irm_lite.core.errors import RunError
from irm_lite.runs.directory import RunDirectory
from irm_lite.runs.lock import Holder

_asked: dict[Path, Holder] = {}  # the runs whose process was asked to stop


def rename(path: Path, name: str) -> Path:
    """Give the run another name in the same folder."""
    if name == path.name:
        return path
    name = name.strip()
    if not name or name in (".", "..") or "/" in name or "\\" in name or "\0" in name:
        raise RunError(f"{name!r} is not a name for a folder", "give one without / and \\")
    target = path.with_name(name)
    _require_free(path)
    try:
        if target.exists():
            raise RunError(f"{target} exists", "choose another name")
        path.rename(target)
    except OSError as error:
        raise RunError(f"{path} cannot be renamed ({error.strerror})", "check the permissions of its folder") from None
    return target


def delete(path: Path) -> None:
    """Remove the run with all that is in it; of a link, only the link."""
    _require_free(path)
    try:
        if path.is_symlink():
            path.unlink()
        else:
            shutil.rmtree(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise RunError(f"{path} cannot be removed ({error.strerror}: {error.filename})", "check its permissions") from None


def stop(path: Path) -> None:
    """Ask the process that writes the run to save and end; asked again, it ends at once."""
    holder = RunDirectory(path).lock.holder()
    if holder is None:
        raise RunError(f"nothing writes {path.name} at the moment", "there is nothing to stop")
    holder.interrupt()
    _asked[path] = holder


def is_stopping(path: Path) -> bool:
    """Whether the process that writes the run has been asked from here already."""
    holder = RunDirectory(path).lock.holder()
    return holder is not None and _asked.get(path) == holder


def _require_free(path: Path) -> None:
    holder = RunDirectory(path).lock.holder()
    if holder is not None:
        raise RunError(f"{path.name} is being written by {holder}", "stop it first")
