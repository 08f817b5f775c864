"""Half-block cells: two shades, one above the other, as cached segments that reach the screen fast."""

import numpy as np
from rich.color import Color
from rich.console import Console
from rich.segment import Segment
from rich.style import Style
from textual.filter import ANSIToTruecolor
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

from irm_lite.core.types import IntArray

_LONGEST = 1 << 16  # a run of equal cells is shorter: no terminal is so wide
_RESET = "\x1b[0m"


class Cells(dict[int, Segment]):
    """Turns rows of shade numbers into strips, by a list of colours. The dictionary itself caches the segments."""

    def __init__(self, colours: list[Color]) -> None:
        super().__init__()
        self.colours = colours
        self._written: dict[int, str] = {}  # the same with their escape sequences, for the app's one console

    def strip(self, upper: IntArray, lower: IntArray) -> Strip:
        """Shade numbers (W,) of the upper and the lower halves -> W cells; equal neighbours are one segment."""
        pairs = upper * len(self.colours) + lower
        edges = np.concatenate(([0], np.flatnonzero(pairs[1:] != pairs[:-1]) + 1, [len(pairs)]))
        keys = (pairs[edges[:-1]] * _LONGEST + edges[1:] - edges[:-1]).tolist() if len(pairs) else []
        return _CellStrip(self, keys, len(pairs))

    def written(self, keys: list[int], console: Console) -> str:
        """Segments with their escape sequences. Each cell sets both its colours, so one reset at the end is enough."""
        try:
            text = "".join(map(self._written.__getitem__, keys))
        except KeyError:
            for key in set(keys) - self._written.keys():
                self._written[key] = Strip([self[key]]).render(console).removesuffix(_RESET)
            return self.written(keys, console)
        return text + _RESET

    def __missing__(self, key: int) -> Segment:
        pair, length = divmod(key, _LONGEST)
        upper, lower = (self.colours[each] for each in divmod(pair, len(self.colours)))
        if upper == lower:  # a blank of one colour is half the bytes
            made = Segment(" " * length, Style.from_color(bgcolor=upper))
        else:
            made = Segment("▀" * length, Style.from_color(upper, lower))
        self[key] = made
        return made


class _CellStrip(Strip):
    """A strip written in one go while uncropped: Textual's own asks every segment for its style, and resets after each."""

    def __init__(self, cells: Cells, keys: list[int], length: int) -> None:
        super().__init__(map(cells.__getitem__, keys), length)
        self._cells, self._keys = cells, keys

    def render(self, console: Console) -> str:
        return self._cells.written(self._keys, console)


def plain_lines(widget: Widget, crop: Region) -> list[Strip]:
    """What Widget.render_lines gives for a widget without border, padding and the like, from its render_line.

    Textual's own looks all of these up for every line, which costs more than the drawing. Its filter that makes 256 colours
    truecolour is left out: on a terminal of 256 they would come back as others.
    """
    lines = [widget.render_line(y) for y in crop.line_range]
    background = widget.background_colors[1]
    for each in widget.get_line_filters():
        if isinstance(each, ANSIToTruecolor):
            continue
        lines = [line.apply_filter(each, background) for line in lines]
    return lines if crop.column_span == (0, widget.size.width) else [line.crop(*crop.column_span) for line in lines]
