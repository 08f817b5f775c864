"""Layers down, indices across, a crosshair: the heatmap itself, drawn line by line."""

from typing import ClassVar

import numpy as np
from rich.color import Color
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Region, Size
from textual.scroll_view import ScrollView
from textual.strip import Strip

from irm_lite.analysis.pictures.pooling import pool_signed_max
from irm_lite.core.types import IntArray
from irm_lite_tui.heatmap.messages import NeuronHovered, WindowMoved
from irm_lite_tui.heatmap.source import Picture
from irm_lite_tui.heatmap.widgets.cells import Cells, plain_lines
from irm_lite_tui.heatmap.widgets.colour_maps import N_SHADES, mark, shade_numbers, shades
from irm_lite_tui.heatmap.widgets.window import Window, column_of, halves_of, shown_index, zooms

_MARK, _EMPTY = N_SHADES, N_SHADES + 1  # numbers of the colours after the map's own


class HeatmapGrid(ScrollView, can_focus=True):
    """A picture at a zoom. What it shows changes by `show`, `paint`, `go` and its keys; it posts WindowMoved."""

    DEFAULT_CSS = """
    HeatmapGrid {
        width: 1fr; height: 1fr; overflow: hidden; background: $background;
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left", "move(-1, 0)", "Left", show=False, id="grid.left"),
        Binding("right", "move(1, 0)", "Right", show=False, id="grid.right"),
        Binding("up", "move(0, -1)", "Layer up", show=False, id="grid.layer-up"),
        Binding("down", "move(0, 1)", "Layer down", show=False, id="grid.layer-down"),
        Binding("shift+left,pageup", "pan(-1)", "Pan left", show=False, id="grid.pan-left"),
        Binding("shift+right,pagedown", "pan(1)", "Pan right", show=False, id="grid.pan-right"),
        Binding("home", "edge(0)", "First index", show=False, id="grid.first-index"),
        Binding("end", "edge(1)", "Last index", show=False, id="grid.last-index"),
        Binding("plus,equals_sign", "zoom(1)", "Zoom", key_display="+-", id="grid.zoom"),
        Binding("minus,underscore", "zoom(-1)", "Zoom out", show=False, id="grid.zoom-out"),
        Binding("0", "zoom(-99)", "All indices", show=False, id="grid.all-indices"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self.picture: Picture | None = None
        self._row, self._index, self._zoom = 0, 0, 0
        self._columns, self._halves = 1, 1
        self._robust, self._map = True, "blue-orange"
        self._cells: Cells | None = None
        self._numbers: IntArray | None = None  # (L, columns) shades at this zoom
        self._strips: dict[int, Strip] = {}

    @property
    def window(self) -> Window:
        """What is shown of the picture."""
        width, height = self.size
        left, top = self.scroll_offset
        return Window(self._columns, self._halves, left, top, width, height, self._row, self._index)

    def show(self, picture: Picture) -> None:
        """Another picture; zoom and crosshair stay where they are as far as it has them. WindowMoved where they do not."""
        before, self.picture = self.window, picture
        self._row = min(self._row, len(picture.layers) - 1)
        self._index = min(self._index, picture.values.shape[1] - 1)
        self._fit()
        self._redraw()
        if self.window != before:
            self._moved()

    def paint(self, colour_map: str, robust: bool) -> None:
        """Another colour map or scale: full colour at the largest |v|, or at the 99.5th percentile."""
        if (colour_map, robust) == (self._map, self._robust):
            return
        if colour_map != self._map:
            self._map, self._cells = colour_map, None
        self._robust = robust
        self._redraw()

    def go(self, row: int, index: int) -> None:
        """Put the crosshair on a neuron, and show it."""
        if self.picture is None:
            return
        stale = self._crossed_lines()
        self._row, self._index = row, index
        for line in stale | self._crossed_lines():
            self._strips.pop(line, None)
            self.refresh_line(line)
        before = self.scroll_offset
        self._bring_into_view()
        if before == self.scroll_offset:
            self.post_message(WindowMoved(self.window))

    def neuron_at(self, x: int, y: int) -> tuple[int, int] | None:
        """The neuron that a cell shows, of two layers the stronger: its row and index. None beside the picture."""
        if (picture := self.picture) is None:
            return None
        column, line = x + self.scroll_offset.x, y + self.scroll_offset.y
        rows = {half // self._halves for half in (2 * line, 2 * line + 1) if half // self._halves < len(picture.layers)}
        if not rows or not 0 <= column < self._columns:
            return None
        found = [(row, shown_index(picture.values[row], column, self._columns)) for row in sorted(rows)]
        return max(found, key=lambda neuron: float(picture.magnitudes[neuron]))

    def render_lines(self, crop: Region) -> list[Strip]:
        empty: Color = self.background_colors[1].rich_color
        if self._cells is None or self._cells.colours[_EMPTY] != empty:  # the first time, another map, another theme
            system = self.app.console.color_system or "256"
            self._cells = Cells([*shades(self._map, system), mark(self._map, system), empty])
            self._strips.clear()
        return plain_lines(self, crop)

    def render_line(self, y: int) -> Strip:
        line = y + self.scroll_offset.y
        if line not in self._strips and self._cells is not None:
            width, left = self.size.width, self.scroll_offset.x
            self._strips[line] = self._cells.strip(*(self._half(half, left, width) for half in (2 * line, 2 * line + 1)))
        return self._strips[line]

    def action_move(self, columns: int, layers: int) -> None:
        """By cells: where a cell shows several indices, to the one that the next cell shows."""
        if self.picture is None:
            return
        hidden_size = self.picture.values.shape[1]
        row = min(max(0, self._row + layers), len(self.picture.layers) - 1)
        column = min(max(0, column_of(self._index, self._columns, hidden_size) + columns), self._columns - 1)
        self.go(row, shown_index(self.picture.values[row], column, self._columns) if columns else self._index)

    def action_pan(self, direction: int) -> None:
        """By half of what is shown; the crosshair stays on its neuron."""
        self.scroll_to(x=self.scroll_offset.x + direction * max(1, self.window.width // 2), animate=False, force=True)

    def action_edge(self, last: int) -> None:
        if self.picture is not None:
            self.go(self._row, last * (self.picture.values.shape[1] - 1))

    def action_zoom(self, steps: int) -> None:
        """In or out by halves; the crosshair's neuron stays where it is on the screen."""
        self._zoom_at(steps, self._index)

    def on_resize(self) -> None:
        self._fit()
        self._redraw()
        self._moved()

    def on_click(self, event: events.Click) -> None:
        if (offset := event.get_content_offset(self)) and (neuron := self.neuron_at(*offset)):
            self.go(*neuron)

    def on_mouse_move(self, event: events.MouseMove) -> None:
        offset = event.get_content_offset(self)
        self.post_message(NeuronHovered(self.neuron_at(*offset) if offset else None))

    def on_leave(self) -> None:
        self.post_message(NeuronHovered(None))

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        self._wheel(event, 1)

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        self._wheel(event, -1)

    def watch_scroll_x(self, old_value: float, new_value: float) -> None:
        super().watch_scroll_x(old_value, new_value)
        if round(old_value) != round(new_value):
            self._strips.clear()
            self.post_message(WindowMoved(self.window))

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        super().watch_scroll_y(old_value, new_value)
        if round(old_value) != round(new_value):
            self.post_message(WindowMoved(self.window))

    def _wheel(self, event: events.MouseEvent, direction: int) -> None:
        """Zooms at the pointer; with shift it pans."""
        event.stop()
        event.prevent_default()
        if event.shift:
            self.action_pan(-direction)
        elif (offset := event.get_content_offset(self)) and (neuron := self.neuron_at(*offset)):
            self._zoom_at(direction, neuron[1])

    def _zoom_at(self, steps: int, index: int) -> None:
        if self.picture is None:
            return
        hidden_size = self.picture.values.shape[1]
        seen = column_of(index, self._columns, hidden_size) - self.scroll_offset.x
        self._zoom += steps
        self._fit()
        self.scroll_to(x=column_of(index, self._columns, hidden_size) - seen, animate=False, force=True)
        self._redraw()
        self._moved()

    def _fit(self) -> None:
        """The sizes that follow from the picture, the zoom and the room."""
        if self.picture is None:
            return
        n_layers, hidden_size = self.picture.values.shape
        width, height = self.size
        possible = zooms(hidden_size, width)
        self._zoom = min(max(0, self._zoom), len(possible) - 1)
        self._columns, self._halves = possible[self._zoom], halves_of(n_layers, height)
        self.virtual_size = Size(self._columns, -(-n_layers * self._halves // 2))

    def _bring_into_view(self) -> None:
        """Scroll no farther than the crosshair needs, with some cells to spare."""
        window = self.window
        column = self._crosshair_column()
        lines = self._crossed_lines()
        spare = min(4, window.width // 4)
        x = min(max(window.left, column + 1 + spare - window.width), max(0, column - spare))
        y = min(max(window.top, max(lines) + 1 - window.height), min(lines))
        self.scroll_to(x=x, y=y, animate=False, force=True)

    def _redraw(self) -> None:
        self._numbers = None
        self._strips.clear()
        self.refresh()

    def _moved(self) -> None:
        if self.picture is not None:
            self.post_message(WindowMoved(self.window))

    def _crosshair_column(self) -> int:
        return column_of(self._index, self._columns, self.picture.values.shape[1]) if self.picture else 0

    def _crossed_lines(self) -> set[int]:
        """The lines that the crosshair's layer is on."""
        first = self._row * self._halves
        return set(range(first // 2, (first + self._halves - 1) // 2 + 1))

    def _half(self, half: int, left: int, width: int) -> IntArray:
        """The shade numbers (width,) of a half line."""
        shown = np.full(width, _EMPTY, dtype=np.int64)
        if self.picture is None or half // self._halves >= len(self.picture.layers):
            return shown
        if self._numbers is None:
            limit = self.picture.robust_limit if self._robust else self.picture.whole_limit
            self._numbers = shade_numbers(pool_signed_max(self.picture.values, self._columns), limit)
        row = half // self._halves
        part = self._numbers[row, left : left + width]
        shown[: len(part)] = part
        if row == self._row and 0 <= (cross := self._crosshair_column() - left) < width:
            shown[cross] = _MARK
        return shown
