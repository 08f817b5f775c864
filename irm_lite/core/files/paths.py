"""Paths and hub ids as users write them."""

import os
import re
from collections.abc import Callable
from pathlib import Path

from irm_lite.core.errors import InputError

_NOWHERE = Path(os.devnull) / "no-home"
_HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*", re.ASCII)


def expanded(text: str) -> Path:
    """The path with ~ and ~user as a shell has them. Raises InputError where there is no such user."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise InputError(f"{text}: there is no home folder of that user", "write the whole path") from None


def is_there(path: Path) -> bool:
    """Whether a path exists; False where it cannot be a path, or where we may not look."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def is_file(path: Path) -> bool:
    """Whether an ordinary file is there; False where it cannot be a path, or where we may not look."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def is_utf8(name: str) -> bool:
    """Whether it can be written as UTF-8: Python keeps odd bytes of file names, and what JSON escapes, as halves of characters."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_hub_id(name: str) -> bool:
    """Whether a text is written as the hub names models and data sets, owner/name; a folder may have such a path too."""
    return _HUB_ID.fullmatch(name) is not None


def cache_folder() -> Path:
    """Where what can be computed again is kept: $IRM_LITE_CACHE, or the system's own place."""
    import platformdirs

    named = os.environ.get("IRM_LITE_CACHE")
    return Path(named) if named else system_folder(platformdirs.user_cache_path)


def system_folder(place: Callable[[str], Path]) -> Path:
    """The system's folder for irm-lite's own files, as platformdirs' function has it; without a home, one that never is."""
    try:
        found = place("irm-lite")
    except RuntimeError:
        return _NOWHERE
    return found if found.is_absolute() else _NOWHERE  # older versions answer "~", which would be made here
