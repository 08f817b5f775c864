"""Messages of the heatmap."""

from pathlib import Path
from typing import TYPE_CHECKING

from textual.message import Message

if TYPE_CHECKING:  # numpy would delay the first frame
    from irm_lite_tui.heatmap.source import Source
    from irm_lite_tui.heatmap.widgets.window import Window


class WindowMoved(Message):
    """The grid shows another part of its picture, or its crosshair was moved."""

    def __init__(self, window: "Window") -> None:
        super().__init__()
        self.window = window


class NeuronHovered(Message):
    """The pointer is over a neuron: its row among the picture's layers, and its index. None where it left the grid."""

    def __init__(self, neuron: tuple[int, int] | None) -> None:
        super().__init__()
        self.neuron = neuron


class NeuronChosen(Message):
    """A neuron of the list was chosen: its row among the picture's layers, and its index."""

    def __init__(self, row: int, index: int) -> None:
        super().__init__()
        self.row = row
        self.index = index


class SliderMoved(Message):
    """Another token of the recorded prompt was chosen."""

    def __init__(self, token: int) -> None:
        super().__init__()
        self.token = token


class JumpGiven(Message):
    """A line was entered at the prompt."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text


class PaintChanged(Message):
    """The heatmap has another colour map or scale."""

    def __init__(self, colours: str, robust: bool) -> None:
        super().__init__()
        self.colours, self.robust = colours, robust


class SourceLoaded(Message):
    """A worker has read what can be drawn; `compared` where it is what to subtract."""

    def __init__(self, source: "Source", compared: bool) -> None:
        super().__init__()
        self.source = source
        self.compared = compared


class SourceFailed(Message):
    """A worker could not read it: one line that says why, and the fix."""

    def __init__(self, path: Path, why: str, compared: bool) -> None:
        super().__init__()
        self.path = path
        self.why = why
        self.compared = compared


class SourcesFound(Message):
    """What can be drawn near the source that is shown: names and places."""

    def __init__(self, found: list[tuple[str, Path]]) -> None:
        super().__init__()
        self.found = found


class PictureSaved(Message):
    """A picture was written to this place."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path


class PictureNotSaved(Message):
    """A picture could not be written: one line that says why, and the fix."""

    def __init__(self, why: str) -> None:
        super().__init__()
        self.why = why
