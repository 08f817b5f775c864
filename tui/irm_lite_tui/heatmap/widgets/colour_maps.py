"""Colour maps: values from -1 to 1 as terminal colours, and as the 256 or the 16 colours of a lesser terminal."""

from dataclasses import dataclass

import numpy as np
from rich.color import Color

from irm_lite.analysis.pictures.heatmap import (
    NEGATIVE,
    NEGATIVE_16,
    NEGATIVE_256,
    POSITIVE,
    POSITIVE_16,
    POSITIVE_256,
    POWER,
    ZERO,
)
from irm_lite.core.types import FloatArray, IntArray

LEVELS = 24  # shades on each side of zero: few enough that neighbours are often equal, which is what makes drawing fast
N_SHADES = 2 * LEVELS + 1
RGB = tuple[int, int, int]


@dataclass(frozen=True)
class ColourMap:
    """Each side from zero out: stops of RGB at equal distances, and ramps of 256- and of 16-colour numbers by hand.

    The nearest of them to an RGB colour would change hue along the way.
    """

    negative: tuple[RGB, ...]
    positive: tuple[RGB, ...]
    negative_256: tuple[int, ...]
    positive_256: tuple[int, ...]
    negative_16: tuple[int, ...]
    positive_16: tuple[int, ...]
    mark: RGB = (255, 255, 255)  # the crosshair's colour, far from all of the map's
    mark_256: int = 231
    mark_16: int = 15


_CIVIDIS = (  # matplotlib's, made for colour-blind readers
    (0, 34, 78),
    (26, 56, 111),
    (67, 78, 108),
    (97, 101, 111),
    (125, 124, 120),
    (155, 148, 118),
    (188, 174, 108),
    (222, 201, 88),
    (254, 232, 56),
)
_CIVIDIS_256 = (17, 237, 60, 243, 101, 143, 185, 227)
_CIVIDIS_16 = (4, 8, 7, 11)
_GREY, _GREY_256 = ((8, 8, 8), (200, 200, 200)), (232, 234, 236, 238, 241, 244, 247, 250)
_GREY_16 = (0, 8, 7)
_WHITE = (247, 247, 247)

COLOUR_MAPS = {
    "blue-orange": ColourMap(
        (ZERO, NEGATIVE), (ZERO, POSITIVE), NEGATIVE_256, POSITIVE_256, NEGATIVE_16, POSITIVE_16
    ),  # for colour-blind readers too
    "blue-red": ColourMap(  # matplotlib's RdBu_r, as in the saved pictures
        (_WHITE, (104, 171, 208), (6, 49, 98)),
        (_WHITE, (229, 131, 104), (103, 0, 31)),
        (231, 189, 153, 111, 69, 26, 25, 18),
        (231, 224, 217, 210, 203, 196, 160, 124),
        (15, 14, 12, 4),
        (15, 11, 9, 1),
        (0, 170, 0),
        34,
        2,
    ),
    "purple-green": ColourMap(
        (ZERO, (174, 139, 189)),
        (ZERO, (126, 195, 127)),
        (234, 235, 237, 60, 96, 97, 133, 171),
        (234, 235, 237, 65, 71, 77, 114, 120),
        (0, 5, 13),
        (0, 2, 10),
    ),
    "cividis |v|": ColourMap(_CIVIDIS, _CIVIDIS, _CIVIDIS_256, _CIVIDIS_256, _CIVIDIS_16, _CIVIDIS_16, (255, 0, 175), 199, 13),
    "grey |v|": ColourMap(_GREY, _GREY, _GREY_256, _GREY_256, _GREY_16, _GREY_16),
}


def shades(name: str, system: str = "truecolor") -> list[Color]:
    """The map's 2 LEVELS + 1 colours, from -1 over zero to 1, for a terminal of rich's color_system."""
    chosen = COLOUR_MAPS[name]
    ramps = (chosen.negative_256, chosen.positive_256) if system == "256" else (chosen.negative_16, chosen.positive_16)
    sides = []
    for stops, ramp in zip((chosen.negative, chosen.positive), ramps, strict=True):
        if system == "truecolor":
            sides.append([_between(stops, level / LEVELS) for level in range(LEVELS + 1)])
        else:
            sides.append([Color.from_ansi(ramp[round(level / LEVELS * (len(ramp) - 1))]) for level in range(LEVELS + 1)])
    return [*reversed(sides[0][1:]), *sides[1]]


def mark(name: str, system: str = "truecolor") -> Color:
    """The crosshair's colour."""
    chosen = COLOUR_MAPS[name]
    if system == "truecolor":
        return Color.from_rgb(*chosen.mark)
    return Color.from_ansi(chosen.mark_256 if system == "256" else chosen.mark_16)


def shade_numbers(values: FloatArray, limit: float) -> IntArray:
    """Values of any shape as places in `shades`; beyond the limit as the outermost. The power brings weak values up."""
    scaled = np.clip(values / np.float32(limit), -1.0, 1.0)
    numbers: IntArray = np.rint(np.copysign(np.abs(scaled) ** np.float32(POWER), scaled) * LEVELS).astype(np.int64) + LEVELS
    return numbers


def _between(stops: tuple[RGB, ...], place: float) -> Color:
    """The colour at 0..1 between stops."""
    position = place * (len(stops) - 1)
    start = min(int(position), len(stops) - 2)
    mixed = [low + (high - low) * (position - start) for low, high in zip(stops[start], stops[start + 1], strict=True)]
    return Color.from_rgb(*(round(each) for each in mixed))
