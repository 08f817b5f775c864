"""The indices that matter most, strongest first; the one under the cursor is the crosshair's."""

from typing import ClassVar

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

from irm_lite_tui.heatmap.messages import NeuronChosen
from irm_lite_tui.heatmap.source import Picture
from irm_lite_tui.heatmap.widgets.cells import plain_lines

_COUNT = 100
_HEAD = "     index layer    value "


class TopNeurons(Widget, can_focus=True):
    """By root mean square over the layers, each with its strongest layer and the value there; posts NeuronChosen.

    Textual's OptionList takes half of what a live heatmap may cost.
    """

    DEFAULT_CSS = """
    TopNeurons { width: 27; height: 1fr; background: $surface; color: $foreground; }
    TopNeurons:focus { background: $panel; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "move(-1)", "Stronger", show=False, id="top.stronger"),
        Binding("down", "move(1)", "Weaker", show=False, id="top.weaker"),
        Binding("pageup", "move(-10)", "Ten up", show=False, id="top.ten-up"),
        Binding("pagedown", "move(10)", "Ten down", show=False, id="top.ten-down"),
        Binding("home", "move(-1000)", "Strongest", show=False, id="top.strongest"),
        Binding("end", "move(1000)", "Weakest", show=False, id="top.weakest"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._neurons: list[tuple[int, int]] = []
        self._lines: list[str] = []
        self._cursor, self._first = 0, 0
        self._look = Style()

    def show(self, picture: Picture) -> None:
        """Fill the list; the cursor keeps its place."""
        self._neurons = picture.top(_COUNT)
        self._lines = [
            f"{rank:>4} {index:>5} {picture.layers[row]:>5} {picture.values[row, index]:>+#8.3g} "
            for rank, (row, index) in enumerate(self._neurons, 1)
        ]
        self._cursor = min(self._cursor, len(self._lines) - 1)
        self.refresh()

    def render_lines(self, crop: Region) -> list[Strip]:
        self._look = self.rich_style
        return plain_lines(self, crop)

    def render_line(self, y: int) -> Strip:
        place, width = self._first + y - 1, self.size.width
        if y == 0:
            text, style = _HEAD, self._look + Style(dim=True)
        elif place < len(self._lines):
            text, style = self._lines[place], self._look + Style(reverse=place == self._cursor)
        else:
            text, style = "", self._look
        return Strip([Segment(f" {text}".ljust(width)[:width], style)], width)

    def action_move(self, places: int) -> None:
        if self._neurons:
            self._go(min(max(0, self._cursor + places), len(self._neurons) - 1))

    def on_click(self, event: events.Click) -> None:
        place = self._first + event.y - 1
        if event.y >= 1 and place < len(self._neurons):
            self._go(place)

    def on_mouse_scroll_up(self) -> None:
        self.action_move(-3)

    def on_mouse_scroll_down(self) -> None:
        self.action_move(3)

    def _go(self, place: int) -> None:
        room = max(1, self.size.height - 1)
        self._cursor = place
        self._first = min(max(self._first, place + 1 - room), place)
        self.refresh()
        self.post_message(NeuronChosen(*self._neurons[place]))
