"""Files and folders that are either absent or whole: written beside their place, fsynced, renamed."""

import errno
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile

from irm_lite.core.errors import InputError

_NO_ROOM = (errno.ENOSPC, errno.EFBIG, errno.EIO, errno.EDQUOT)
_FILE = re.compile(r"\..+\.[0-9a-f]{8}(\.[^.]*)?")  # the names that atomic_path and the others give
_FOLDER = re.compile(r"\..+\.(partial|old|gone)")


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
    except OSError as error:
        if error.filename is None and error.errno in _NO_ROOM:
            error.filename = str(target)  # a failed write names no file
        raise
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
    _put_back(aside, target)
    for left_over in (temporary, aside):
        _remove(left_over)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        for inside in (*temporary.rglob("*"), temporary):
            if inside.is_dir():
                sync_folder(inside)
            else:
                with inside.open("r+b") as handle:
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


def remove_folder(folder: Path) -> None:
    """Remove a folder, renaming it first: a crash in between leaves no half of it under its name."""
    gone = folder.with_name(f".{folder.name}.gone")
    _remove(gone)
    folder.replace(gone)
    _remove(gone)


def remove_left_over_files(folder: Path) -> None:
    """Remove temporary files that killed writers left in a folder. The caller must be the only one who writes there."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if is_left_over(path.name) and path.is_file():
            path.unlink()


def remove_left_over_folders(folder: Path) -> None:
    """The same for temporary folders; an old folder that was put aside for a new one that never came is put back."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if _FOLDER.fullmatch(path.name) and path.is_dir():
            if path.suffix == ".old":
                _put_back(path, path.with_name(path.stem[1:]))
            _remove(path)


def is_left_over(name: str) -> bool:
    """Whether a file of this name is a killed writer's temporary file."""
    return _FILE.fullmatch(name) is not None


def _put_back(aside: Path, target: Path) -> None:
    """Undo the first rename of `atomic_folder` where a crash prevented the second."""
    if aside.exists() and not target.exists():
        aside.replace(target)


def _remove(path: Path) -> None:
    """Remove a folder, or a file in its place."""
    if path.is_file() or path.is_symlink():
        path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)


def require_folder(folder: Path) -> None:
    """Raise InputError where a folder, which need not exist yet, could not be written: called before the work, not after it."""
    try:
        with TemporaryFile(dir=_standing(folder)):
            pass
    except OSError as error:
        raise InputError(f"{folder} cannot be written ({error.strerror})", "choose another place") from None


def require_new(path: Path, force: bool) -> None:
    """Raise InputError where something is there already, unless it is to be replaced; a link to nowhere is something too."""
    if os.path.lexists(path) and not force:
        raise InputError(f"{path} exists", "choose another -o, or say --force")


def require_not_read(path: Path, *read: Path | None) -> None:
    """Raise InputError where a path to write is one of the files that the work reads."""
    for each in read:
        if each is not None and path.exists() and each.exists() and path.samefile(each):
            raise InputError(f"{path} is read for this", "choose another -o")


def free_space(folder: Path) -> int:
    """Free bytes where a folder is, or will be."""
    return shutil.disk_usage(_standing(folder)).free


def _standing(folder: Path) -> Path:
    """The folder, or its nearest parent that exists."""
    return next(each for each in (folder.absolute(), *folder.absolute().parents) if each.exists())


def sync_folder(folder: Path) -> None:
    """Make renames in this folder durable. Windows can not, and need not."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
