"""Files and folders that are either absent or whole: written beside their place, fsynced, renamed."""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile

from irm_lite.errors import InputError


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Yield a temporary path beside `target`; on success it is fsynced and renamed to `target`, else removed.

    The temporary name keeps the suffix, which some writers look at.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.stem}.{secrets.token_hex(4)}{target.suffix}")
    try:
        yield temporary
        with temporary.open("r+b") as file:
            os.fsync(file.fileno())
        temporary.replace(target)
        sync_folder(target.parent)
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()


def write_text(target: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic_path(target) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """Yield an empty folder beside `target` to fill; on success it is fsynced and takes the place of `target`."""
    temporary, aside = (target.with_name(f".{target.name}.{end}") for end in ("partial", "old"))
    for left_over in (temporary, aside):
        _remove(left_over)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        for file in temporary.iterdir():
            with file.open("r+b") as handle:
                os.fsync(handle.fileno())
        if target.exists():
            target.replace(aside)
        try:
            temporary.replace(target)
        except OSError:
            if aside.exists():
                aside.replace(target)
            raise
        sync_folder(target.parent)
        _remove(aside)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _remove(path: Path) -> None:
    """A folder, or a file that stands in its place."""
    if path.is_file() or path.is_symlink():
        path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)


def require_folder(folder: Path) -> None:
    """Raise InputError where nothing could be written into a folder, which need not be there yet: before the work, not after it."""
    try:
        with TemporaryFile(dir=next(each for each in (folder, *folder.parents) if each.exists())):
            pass
    except OSError as error:
        raise InputError(f"{folder} cannot be written ({error.strerror})", "choose another place") from None


def sync_folder(folder: Path) -> None:
    """Make renames in this folder last. Windows can neither do it nor needs it."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
