"""Unsaved work: a screen that would lose some says so, and whoever closes it asks first."""

from collections.abc import Iterable
from typing import Any, Protocol, runtime_checkable

from textual.screen import Screen


@runtime_checkable
class Loses(Protocol):
    """A screen that may hold unsaved work."""

    def would_lose(self) -> str:
        """One line for the question; empty where nothing would be lost."""


def losses(screens: Iterable[Screen[Any]]) -> str:
    """Their lines, one below the other; empty where nothing would be lost."""
    return "\n".join(loss for screen in screens if isinstance(screen, Loses) and (loss := screen.would_lose()))
