"""Every message that crosses a widget's border."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from textual.message import Message

if TYPE_CHECKING:  # numpy would delay the first frame
    from irm_lite.data.dataset import Example
    from irm_lite_tui.chat.server import Serve
    from irm_lite_tui.dashboard.reader import Reading
    from irm_lite_tui.heatmap.source import Source
    from irm_lite_tui.heatmap.widgets.window import Window
    from irm_lite_tui.watch.children import Child
    from irm_lite_tui.watch.run_state import RunView

Mode = Literal["runs", "train", "heatmap", "chat", "export"]


# The application


class OpenIn(Message):
    """A path (run, recording or vector) shall be opened in another mode's screen."""

    def __init__(self, mode: Mode, path: Path) -> None:
        super().__init__()
        self.mode, self.path = mode, path


# Child processes


class ChildLine(Message):
    """A child wrote a line."""

    def __init__(self, child: "Child", stream: Literal["out", "err"], text: str) -> None:
        super().__init__()
        self.child, self.stream, self.text = child, stream, text


class ChildEnded(Message):
    """A child has ended: with its exit code, its JSON document if it wrote one, and its last line on stderr."""

    def __init__(self, child: "Child", code: int, document: Mapping[str, Any] | None, last: str) -> None:
        super().__init__()
        self.child, self.code, self.document, self.last = child, code, document, last


# Runs


class RunsRead(Message):
    """The folder of runs was looked at."""

    def __init__(self, views: "list[RunView]") -> None:
        super().__init__()
        self.views = views


class RunActionDone(Message):
    """A run was deleted, or could not be: one line to show."""

    def __init__(self, text: str, failed: bool) -> None:
        super().__init__()
        self.text, self.failed = text, failed


class SortChanged(Message):
    """The runs are sorted by another column, or the other way round."""

    def __init__(self, column: str, descending: bool) -> None:
        super().__init__()
        self.column, self.descending = column, descending


# Dashboard


class RunRead(Message):
    """The watched run was looked at."""

    def __init__(self, reading: "Reading") -> None:
        super().__init__()
        self.reading = reading


# Train form


class SettingChanged(Message):
    """A field of the form was edited: what stands in it now."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__()
        self.name, self.text = name, text


class SettingFocused(Message):
    """A field of the form has the focus: its help is wanted."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name


class DataRead(Message):
    """The head of a dataset was read: its first rows and a line about it, or what is wrong with it."""

    def __init__(self, spec: str, rows: "list[Example]", about: str, failed: bool) -> None:
        super().__init__()
        self.spec, self.rows, self.about, self.failed = spec, rows, about, failed


# The heatmap


class WindowMoved(Message):
    """The grid shows another part of its picture, or its crosshair stands elsewhere."""

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
    """A worker could not read it: one line that says why, and the mend."""

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
    """A picture could not be written: one line that says why, and the mend."""

    def __init__(self, why: str) -> None:
        super().__init__()
        self.why = why


# Chat


class ServeSaid(Message):
    """`irm-lite serve` sent an event (docs/serve.md), checked."""

    def __init__(self, serve: "Serve", event: dict[str, Any]) -> None:
        super().__init__()
        self.serve, self.event = serve, event


class ServeEnded(Message):
    """`irm-lite serve` has ended: with its exit code and its last line on stderr."""

    def __init__(self, serve: "Serve", code: int, last: str) -> None:
        super().__init__()
        self.serve, self.code, self.last = serve, code, last


class StrengthMoved(Message):
    """The strength slider stands elsewhere."""

    def __init__(self, strength: float) -> None:
        super().__init__()
        self.strength = strength


class LayersMoved(Message):
    """The layer range reaches elsewhere."""


class TokenChosen(Message):
    """The cursor stands on a token of a column's latest answer."""

    def __init__(self, column: str, token: int) -> None:
        super().__init__()
        self.column, self.token = column, token


# Export


class JobEnded(Message):
    """An export or a bake has ended well: which, and its JSON document."""

    def __init__(self, job: str, document: Mapping[str, Any]) -> None:
        super().__init__()
        self.job, self.document = job, document
