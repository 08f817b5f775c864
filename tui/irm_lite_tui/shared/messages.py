"""Messages that cross from one mode to another."""

from pathlib import Path
from typing import Literal

from textual.message import Message

Mode = Literal["runs", "train", "heatmap", "chat", "export"]


class OpenIn(Message):
    """Open a path (run, recording or vector) in another mode's screen."""

    def __init__(self, mode: Mode, path: Path) -> None:
        super().__init__()
        self.mode, self.path = mode, path


class RunTaken(Message):
    """A run is taken in hand: the screens open on it. None: there is no run."""

    def __init__(self, path: Path | None) -> None:
        super().__init__()
        self.path = path


class DemoAsked(Message):
    """Train the demo's tone: the first run of an empty folder."""
