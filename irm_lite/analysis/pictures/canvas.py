"""What the matplotlib pictures share: figures without a display, literal text, whole files."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from irm_lite.analysis.pictures.own_style import own_style
from irm_lite.core.files.atomic import atomic_path
from irm_lite.core.visible_text import visible_lines

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_APART = 22  # points from one label to the next, so that they do not touch
MARK_POINTS = 22  # height of the marks above the axes: what a title must leave free


def new_figure(width: float, height: float) -> "Figure":
    """An empty figure, inches. What is put into it, as it is saved, is drawn within `own_style`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: "Figure", path: Path) -> None:
    """Write as PNG or SVG by the path's suffix."""
    with own_style(), warnings.catch_warnings(), atomic_path(path) as temporary:
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # drawn as a box: tokens come in every script
        figure.savefig(temporary, dpi=150)


def literal(text: str) -> str:
    """The text as matplotlib shall draw it: "$" starts no formula, control characters are visible.

    What its fonts lack (joiners, private use, unassigned: text, says visible_text) is a box, as letters of other scripts are.
    """
    return visible_lines(text).replace("$", r"\$")


def mark_indices(axes: "Axes", marks: Sequence[int]) -> None:
    """A thin line and a label above the axes for each index, outside the data; labels that would touch move apart."""
    low, high = axes.get_xlim()
    points = axes.bbox.width * 72 / axes.figure.dpi / (high - low)  # an index
    place = -float("inf")
    for mark in sorted(set(marks)):
        place = max(points * mark, place + _APART)
        axes.annotate(
            str(mark),
            (mark, 1.0),
            xycoords=axes.get_xaxis_transform(),
            xytext=(place - points * mark, MARK_POINTS - 10),
            textcoords="offset points",
            fontsize=8,
            horizontalalignment="center",
            arrowprops={"arrowstyle": "-", "linewidth": 0.7, "shrinkA": 0, "shrinkB": 0},
        )
