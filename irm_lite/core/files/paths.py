"""Paths as users write them."""

from pathlib import Path

from irm_lite.core.errors import InputError


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
