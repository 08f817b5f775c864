"""Colour maps: values from -1 to 1 as terminal colours, and as the 256 colours of a lesser terminal."""

from dataclasses import dataclass

import numpy as np
from rich.color import Color

from irm_lite.analysis.pictures.heatmap import NEGATIVE, NEGATIVE_256, POSITIVE, POSITIVE_256, POWER, ZERO
from irm_lite.core.types import FloatArray, IntArray

LEVELS = 24  # shades on each side of zero: few enough that neighbours are often equal, which is what makes drawing fast
N_SHADES = 2 * LEVELS + 1
RGB = tuple[int, int, int]


@dataclass(frozen=True)
class ColourMap:
    """Each side from zero out: stops of RGB at equal distances, and a ramp of 256-colour numbers by hand.

    The nearest of the 256 to an RGB colour would change hue along the way.
    """

    negative: tuple[RGB, ...]
    positive: tuple[RGB, ...]
    negative_256: tuple[int, ...]
    positive_256: tuple[int, ...]
    mark: RGB = (255, 255, 255)  # the crosshair's colour, far from all of the map's
    mark_256: int = 231


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
_GREY, _GREY_256 = ((8, 8, 8), (200, 200, 200)), (232, 234, 236, 238, 241, 244, 247, 250)
_WHITE = (247, 247, 247)

COLOUR_MAPS = {
    "blue-orange": ColourMap((ZERO, NEGATIVE), (ZERO, POSITIVE), NEGATIVE_256, POSITIVE_256),  # for colour-blind readers too
    "blue-red": ColourMap(  # matplotlib's RdBu_r, as in the saved pictures
        (_WHITE, (104, 171, 208), (6, 49, 98)),
        (_WHITE, (229, 131, 104), (103, 0, 31)),
        (231, 189, 153, 111, 69, 26, 25, 18),
        (231, 224, 217, 210, 203, 196, 160, 124),
        (0, 170, 0),
        34,
    ),
    "purple-green": ColourMap(
        (ZERO, (174, 139, 189)),
        (ZERO, (126, 195, 127)),
        (234, 235, 237, 60, 96, 97, 133, 171),
        (234, 235, 237, 65, 71, 77, 114, 120),
    ),
    "cividis |v|": ColourMap(_CIVIDIS, _CIVIDIS, _CIVIDIS_256, _CIVIDIS_256, (255, 0, 175), 199),
    "grey |v|": ColourMap(_GREY, _GREY, _GREY_256, _GREY_256),
}


def shades(name: str, truecolor: bool = True) -> list[Color]:
    """The map's 2 LEVELS + 1 colours, from -1 over zero to 1."""
    chosen = COLOUR_MAPS[name]
    sides = []
    for stops, ramp in ((chosen.negative, chosen.negative_256), (chosen.positive, chosen.positive_256)):
        if truecolor:
            sides.append([_between(stops, level / LEVELS) for level in range(LEVELS + 1)])
        else:
            sides.append([Color.from_ansi(ramp[round(level / LEVELS * (len(ramp) - 1))]) for level in range(LEVELS + 1)])
    return [*reversed(sides[0][1:]), *sides[1]]


def mark(name: str, truecolor: bool = True) -> Color:
    """The crosshair's colour."""
    chosen = COLOUR_MAPS[name]
    return Color.from_rgb(*chosen.mark) if truecolor else Color.from_ansi(chosen.mark_256)


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
