"""The heatmap's margins: indices and their mean |v| above it, layers and their mean |v| beside it."""

import math
from typing import ClassVar, Literal, Self

import numpy as np
from rich.segment import Segment
from rich.style import Style
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

from irm_lite.analysis.pictures.pooling import pool_signed_max
from irm_lite_tui.heatmap.source import Picture
from irm_lite_tui.heatmap.widgets.cells import plain_lines
from irm_lite_tui.heatmap.widgets.window import Window, column_of, first_index

BESIDE = 10  # cells of the margin beside the picture, which those above leave free
_NUMBER = 3  # cells of a layer's number
_BAR = 5  # cells of a layer's bar
_APART = 12  # cells from one number of the ruler to the next
_UP = " ▁▂▃▄▅▆▇█"
_ACROSS = ("", "▏", "▎", "▍", "▌", "▋", "▊", "▉")
Piece = tuple[str, Literal["bar", "number", "here"]]  # a text, and what it is: `here` belongs to the crosshair


class Margin(Widget):
    """Follows the grid: `follow` gives it the picture and the window on it. Drawn again only where its text has changed."""

    DEFAULT_CSS = """
    Margin { color: $accent; background: $background; height: 1; width: 1fr; }
    Margin > .margin--number { color: $text-muted; }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {"margin--number"}

    def __init__(self) -> None:
        super().__init__()
        self._lines: list[list[Piece]] = []
        self._strips: dict[int, Strip] = {}
        self._styles_of: dict[str, Style] = {}

    def follow(self, picture: Picture, window: Window) -> None:
        lines = self.draw(picture, window)
        if lines != self._lines:
            self._lines = lines
            self.refresh()

    def draw(self, picture: Picture, window: Window) -> list[list[Piece]]:
        raise NotImplementedError

    def refresh(self, *regions: Region, repaint: bool = True, layout: bool = False, recompose: bool = False) -> Self:
        self._strips.clear()
        return super().refresh(*regions, repaint=repaint, layout=layout, recompose=recompose)

    def render_lines(self, crop: Region) -> list[Strip]:
        if not self._strips:
            number = self.get_component_rich_style("margin--number")
            here = number + Style(bold=True, reverse=True)
            self._styles_of = {"bar": self.rich_style, "number": number, "here": here}
        return plain_lines(self, crop)

    def render_line(self, y: int) -> Strip:
        if y not in self._strips:
            pieces = self._lines[y] if y < len(self._lines) else []
            strip = Strip([Segment(text, self._styles_of[kind]) for text, kind in pieces if text])
            self._strips[y] = strip.adjust_cell_length(self.size.width, self._styles_of["bar"])
        return self._strips[y]


class IndexMargin(Margin):
    """Bars of mean |v| over the layers; a column has its largest index's."""

    def draw(self, picture: Picture, window: Window) -> list[list[Piece]]:
        height = max(1, self.size.height)
        means = pool_signed_max(picture.by_index[None], window.columns)[0]
        eighths = means[window.left : window.left + window.width] / (float(means.max()) or 1.0) * height * 8
        below = 8 * np.arange(height - 1, -1, -1)[:, None]
        rows = np.clip(np.ceil(eighths - below), 0, 8).astype(int).tolist()
        return [[(" " * BESIDE + "".join(_UP[each] for each in row), "bar")] for row in rows]


class Ruler(Margin):
    """Indices at their columns; the crosshair's is highlighted, and replaces those that would touch it."""

    def draw(self, picture: Picture, window: Window) -> list[list[Piece]]:
        hidden_size = picture.values.shape[1]
        columns = min(window.columns - window.left, window.width)
        own = str(window.index)
        place = column_of(window.index, window.columns, hidden_size) - window.left
        start = min(max(0, place - len(own) // 2), max(0, window.width - len(own))) if 0 <= place < columns else None
        line = [" "] * window.width
        step = _round_step(_APART * hidden_size / window.columns)
        first = first_index(window.left, window.columns, hidden_size)
        for index in range(-(-first // step) * step, hidden_size, step):
            column, label = column_of(index, window.columns, hidden_size) - window.left, str(index)
            free = start is None or column + len(label) < start or column > start + len(own)
            if free and column + len(label) <= columns:
                line[column : column + len(label)] = label
        text, gap = "".join(line), " " * BESIDE
        if start is None:
            return [[(gap + text, "number")]]
        return [[(gap + text[:start], "number"), (own, "here"), (text[start + len(own) :], "number")]]


class PositionBar(Margin):
    """Which part of all indices is shown: a thick piece of a thin line."""

    def draw(self, picture: Picture, window: Window) -> list[list[Piece]]:
        length = min(window.width, window.columns)
        start, end = (round(column / window.columns * length) for column in (window.left, window.left + length))
        shown = max(1, end - start)
        return [[(" " * BESIDE + "─" * start + "━" * shown + "─" * (length - start - shown), "bar")]]


class LayerMargin(Margin):
    """A layer's number, and a bar of its mean |v|; where a line has two layers, two thin bars."""

    DEFAULT_CSS = f"""
    LayerMargin {{ width: {BESIDE}; height: 1fr; }}
    """

    def draw(self, picture: Picture, window: Window) -> list[list[Piece]]:
        cells = picture.by_layer / (float(picture.by_layer.max()) or 1.0) * _BAR
        return [self._line(picture, window, 2 * (y + window.top), cells.tolist()) for y in range(window.height)]

    def _line(self, picture: Picture, window: Window, half: int, cells: list[float]) -> list[Piece]:
        """Of the line whose upper half is this one: the number of a layer that begins here, and bars so many cells long."""
        rows = [each // window.halves for each in (half, half + 1) if each // window.halves < len(picture.layers)]
        if not rows:
            return []
        beginning = [row for row in dict.fromkeys(rows) if row * window.halves >= half]
        here = window.row in beginning
        number = str(picture.layers[window.row if here else beginning[0]]) if beginning else ""
        bar = _bar(cells[rows[0]]) if rows[0] == rows[-1] and len(rows) == 2 else _two_bars([cells[row] for row in rows])
        return [(number.rjust(_NUMBER), "here" if here else "number"), (f" {bar}", "bar")]


def _round_step(least: float) -> int:
    """The smallest 1, 2 or 5 times a power of ten that is no less."""
    power: int = 10 ** max(0, math.floor(math.log10(max(least, 1))))
    return next(digit * power for digit in (1, 2, 5, 10) if digit * power >= least)


def _bar(cells: float) -> str:
    eighths = round(cells * 8)
    return "█" * (eighths // 8) + _ACROSS[eighths % 8]


def _two_bars(cells: list[float]) -> str:
    """One above the other, in half cells; the lower one may be missing."""
    upper, lower = (round(each) for each in (*cells, 0.0)[:2])
    return "".join(" ▀▄█"[(cell < upper) + 2 * (cell < lower)] for cell in range(max(upper, lower)))
