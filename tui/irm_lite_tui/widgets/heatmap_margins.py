"""The heatmap's margins: indices and their mean |v| above it, layers and their mean |v| beside it."""

import math
from typing import Self

import numpy as np
from rich.segment import Segment
from rich.style import Style
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

from irm_lite.analysis.pooling import pool_signed_max
from irm_lite.types import FloatArray
from irm_lite_tui.heatmap_source import Picture
from irm_lite_tui.heatmap_window import Window, column_of, first_index
from irm_lite_tui.widgets.heatmap_cells import plain_lines

_UP = " ▁▂▃▄▅▆▇█"
_ACROSS = " ▏▎▍▌▋▊▉█"
_APART = 12  # cells from one number of the ruler to the next
NUMBER = 4  # cells of a layer's number, with a blank


class Margin(Widget):
    """Follows the grid: `follow` gives it the picture and the window on it."""

    DEFAULT_CSS = """
    Margin { color: $accent; background: $background; }
    """
    picture: Picture | None = None
    window: Window | None = None
    look = Style()  # as the style sheet has it, looked up once for all lines

    def follow(self, picture: Picture, window: Window) -> None:
        if picture is not self.picture or self.depends_on(window) != (self.window and self.depends_on(self.window)):
            self.refresh()
        self.picture, self.window = picture, window

    def render_lines(self, crop: Region) -> list[Strip]:
        self.look = self.rich_style
        return super().render_lines(crop)

    def render_line(self, y: int) -> Strip:
        if self.picture is None or self.window is None:
            return Strip.blank(self.size.width, self.look)
        return Strip(self.draw(self.picture, self.window, y)).adjust_cell_length(self.size.width, self.look)

    def depends_on(self, window: Window) -> object:
        """What of the window it shows."""
        return window

    def draw(self, picture: Picture, window: Window, y: int) -> list[Segment]:
        raise NotImplementedError

    def marked(self) -> Style:
        """What belongs to the crosshair."""
        return self.look + Style(bold=True, reverse=True)


class IndexMargin(Margin):
    """Bars of mean |v| over the layers; a column has its largest index's."""

    DEFAULT_CSS = """
    IndexMargin { height: 1; width: 1fr; }
    """
    _pooled: tuple[FloatArray, FloatArray] | None = None  # of which values, and at this zoom

    def depends_on(self, window: Window) -> object:
        return window.columns, window.left, window.width

    def draw(self, picture: Picture, window: Window, y: int) -> list[Segment]:
        if self._pooled is None or self._pooled[0] is not picture.by_index or self._pooled[1].shape[1] != window.columns:
            self._pooled = (picture.by_index, pool_signed_max(picture.by_index[None], window.columns))
        height = self.size.height
        means = self._pooled[1][0]
        most = float(means.max()) or 1.0
        filled = means[window.left : window.left + window.width] / most * height - (height - 1 - y)
        eighths = np.clip(np.ceil(filled * 8), 0, 8).astype(int).tolist()
        return [Segment("".join(_UP[each] for each in eighths), self.look)]


class Ruler(Margin):
    """Indices at their columns; the crosshair's stands out, over those that would touch it."""

    DEFAULT_CSS = """
    Ruler { height: 1; width: 1fr; color: $text-muted; }
    """

    def draw(self, picture: Picture, window: Window, y: int) -> list[Segment]:
        hidden_size = picture.values.shape[1]
        columns = min(window.columns - window.left, window.width)
        own = str(window.index)
        place = column_of(window.index, window.columns, hidden_size) - window.left
        start = min(max(0, place - len(own) // 2), max(0, window.width - len(own))) if 0 <= place < columns else None
        line = [" "] * max(window.width, 1)
        step = _round_step(_APART * hidden_size / window.columns)
        start_index = first_index(window.left, window.columns, hidden_size)
        for index in range(-(-start_index // step) * step, hidden_size, step):
            column, label = column_of(index, window.columns, hidden_size) - window.left, str(index)
            free = start is None or column + len(label) < start or column > start + len(own)
            if free and column + len(label) <= columns:
                line[column : column + len(label)] = label
        if start is None:
            return [Segment("".join(line), self.look)]
        rest = "".join(line[start + len(own) :])
        return [Segment("".join(line[:start]), self.look), Segment(own, self.marked()), Segment(rest, self.look)]


class PositionBar(Margin):
    """Which part of all indices is shown: a thick piece of a thin line."""

    DEFAULT_CSS = """
    PositionBar { height: 1; width: 1fr; color: $accent; }
    """

    def depends_on(self, window: Window) -> object:
        return window.columns, window.left, window.width

    def draw(self, picture: Picture, window: Window, y: int) -> list[Segment]:
        length = min(window.width, window.columns)
        start, end = (round(column / window.columns * length) for column in (window.left, window.left + length))
        end = max(end, start + 1)
        return [Segment("─" * start, self.look), Segment("━" * (end - start), self.look), Segment("─" * (length - end), self.look)]


class LayerMargin(Margin):
    """A layer's number, and a bar of its mean |v|; where a line has two layers, two thin bars."""

    DEFAULT_CSS = """
    LayerMargin { width: 10; height: 1fr; }
    """

    def __init__(self) -> None:
        super().__init__()
        self._strips: dict[int, Strip] = {}

    def refresh(self, *regions: Region, repaint: bool = True, layout: bool = False, recompose: bool = False) -> Self:
        self._strips.clear()
        return super().refresh(*regions, repaint=repaint, layout=layout, recompose=recompose)

    def render_lines(self, crop: Region) -> list[Strip]:
        if not self._strips:
            self.look = self.rich_style
        return plain_lines(self, crop)

    def render_line(self, y: int) -> Strip:
        if y not in self._strips:
            self._strips[y] = super().render_line(y)
        return self._strips[y]

    def depends_on(self, window: Window) -> object:
        return window.halves, window.top, window.height, window.row

    def draw(self, picture: Picture, window: Window, y: int) -> list[Segment]:
        rows = [half // window.halves for half in (2 * (y + window.top), 2 * (y + window.top) + 1)]
        shown = [row for row in rows if row < len(picture.layers)]
        if not shown or y >= window.height:
            return []
        starting = [row for row in dict.fromkeys(shown) if row * window.halves in (2 * (y + window.top), 2 * (y + window.top) + 1)]
        here = window.row in starting
        label = str(picture.layers[window.row if here else starting[0]]) if starting else ""
        width = self.size.width - NUMBER - 1
        most = float(picture.by_layer.max()) or 1.0
        lengths = [float(picture.by_layer[row]) / most * width for row in shown]
        bar = _bar(lengths[0], width) if len(set(shown)) == 1 else _two_bars(lengths[0], lengths[-1], width)
        style = self.marked() if here else self.look
        return [Segment(label.rjust(NUMBER - 1), style), Segment(f" {bar} ", self.look)]


def _round_step(least: float) -> int:
    """The smallest 1, 2 or 5 times a power of ten that is no less."""
    power: int = 10 ** max(0, math.floor(math.log10(max(least, 1))))
    return next(digit * power for digit in (1, 2, 5, 10) if digit * power >= least)


def _bar(length: float, width: int) -> str:
    eighths = round(length * 8)
    return ("█" * (eighths // 8) + _ACROSS[eighths % 8].strip()).ljust(width)[:width]


def _two_bars(upper: float, lower: float, width: int) -> str:
    """One above the other, in half cells."""
    return "".join(" ▀▄█"[(cell < round(upper)) + 2 * (cell < round(lower))] for cell in range(width))
