"""Heatmaps of layers x neuron index: a PNG by matplotlib, and half-block cells for the terminal."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.color import Color
from rich.style import Style
from rich.text import Text

from irm_lite.analysis.pictures.canvas import MARK_POINTS, literal, mark_indices, new_figure, save_figure
from irm_lite.analysis.pictures.own_style import own_style
from irm_lite.analysis.pictures.pooling import colour_limit, pool_signed_max
from irm_lite.core.types import FloatArray

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PIXELS = 1400  # columns of the picture; more neurons than that are pooled, never dropped
NEGATIVE, ZERO, POSITIVE = (59, 115, 201), (24, 24, 24), (237, 107, 52)  # RGB, told apart by colour-blind readers too
NEGATIVE_256, POSITIVE_256 = (234, 235, 237, 60, 61, 67, 68, 75), (234, 235, 237, 95, 131, 137, 173, 209)
NEGATIVE_16, POSITIVE_16 = (0, 4, 12, 14), (0, 1, 9, 11)  # where there are but the terminal's own colours
POWER = 0.7


def save_heatmap(values: FloatArray, layers: tuple[int, ...], path: Path, title: str, marks: Sequence[int] = ()) -> None:
    """Draw (L, H) values as `heatmap_figure` does, as PNG or SVG by the path's suffix."""
    save_figure(heatmap_figure(values, layers, title, marks), path)


@own_style()
def heatmap_figure(values: FloatArray, layers: tuple[int, ...], title: str, marks: Sequence[int] = ()) -> "Figure":
    """(L, H) values, row by layer, colour centred on zero; each index of `marks` has a line and its number above."""
    limit = colour_limit(values, robust=True)
    figure = new_figure(12, max(3.6, 1.8 + 0.14 * len(layers)))
    axes = figure.add_subplot()
    image = axes.imshow(
        pool_signed_max(values, _PIXELS),
        cmap="RdBu_r",
        vmin=-limit,
        vmax=limit,
        aspect="auto",
        interpolation="nearest",
        extent=(-0.5, values.shape[1] - 0.5, len(layers) - 0.5, -0.5),
    )
    every = max(1, len(layers) // 12)
    axes.set_yticks(range(0, len(layers), every), [str(layer) for layer in layers[::every]])
    axes.set_xlabel("neuron index (position in the hidden size)")
    axes.set_ylabel("layer")
    axes.set_title(literal(title), loc="left", fontsize=10, pad=MARK_POINTS if marks else None)
    mark_indices(axes, marks)
    bar = figure.colorbar(image, ax=axes, extend="both", pad=0.01)
    bar.set_label("added to the residual stream\n(full colour: 99.5th percentile)", fontsize=8)
    return figure


def terminal_heatmap(values: FloatArray, columns: int, rows: int = 15, system: str | None = "truecolor") -> list[Text]:
    """(L, H) values as at most `rows` lines of half blocks: the upper and the lower half of a cell are two layers.

    `system` is rich's color_system, None that of no terminal. In 256 or 16 colours by ramps of their own: the nearest ones to ours
    change hue.
    """
    paint = _colour if system in ("truecolor", None) else partial(_colour_of, *ramps(system))
    pooled = pool_signed_max(values, columns)
    if pooled.shape[0] > 2 * rows:
        pooled = pool_signed_max(np.ascontiguousarray(pooled.T), 2 * rows).T
    if pooled.shape[0] % 2:
        pooled = np.vstack([pooled, np.zeros((1, pooled.shape[1]), dtype=pooled.dtype)])
    shades = np.clip(pooled / colour_limit(values, robust=True), -1.0, 1.0)
    lines = []
    for upper, lower in zip(shades[::2], shades[1::2], strict=True):
        line = Text(no_wrap=True)
        for top, bottom in zip(upper, lower, strict=True):
            line.append("▀", Style(color=paint(float(top)), bgcolor=paint(float(bottom))))
        lines.append(line)
    return lines


def _colour(shade: float) -> Color:
    """Of a value in -1..1; the power brings weak values up to where the eye sees them."""
    target, weight = (POSITIVE if shade > 0 else NEGATIVE), abs(shade) ** POWER
    red, green, blue = (round(zero + (full - zero) * weight) for zero, full in zip(ZERO, target, strict=True))
    return Color.from_rgb(red, green, blue)


def ramps(system: str | None) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The negative and the positive ramp of a terminal without truecolour: numbers of its colours, from zero out."""
    return (NEGATIVE_256, POSITIVE_256) if system == "256" else (NEGATIVE_16, POSITIVE_16)


def _colour_of(negative: tuple[int, ...], positive: tuple[int, ...], shade: float) -> Color:
    ramp = positive if shade > 0 else negative
    number = ramp[round(abs(shade) ** POWER * (len(ramp) - 1))]
    return Color.from_ansi(number) if number > 15 else _of_16(number)


def _of_16(number: int) -> Color:
    """One of the 16 as the RGB that rich takes for it: a number itself the UI's themes would make into another colour."""
    bright = 85 * (number >> 3)
    return Color.from_rgb(*(170 * (number >> bit & 1) + bright for bit in range(3)))
